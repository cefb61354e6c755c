"""Engines for inference servers that run elsewhere."""
