"""Annotation tasks: created, leased, flagged."""
