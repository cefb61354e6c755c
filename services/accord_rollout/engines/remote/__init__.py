"""Inference servers that somebody else runs."""
