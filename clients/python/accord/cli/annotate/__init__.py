"""Annotating in the terminal."""
