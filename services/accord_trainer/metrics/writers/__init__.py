"""Implementations of accord_trainer/metrics/writer.py, one a file."""
