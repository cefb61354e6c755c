"""Blind comparisons of two policies by people."""
