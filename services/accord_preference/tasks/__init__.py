"""Annotation tasks: creation, leases and flags."""
