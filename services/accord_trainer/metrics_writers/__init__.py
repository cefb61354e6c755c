"""Implementations of accord_trainer/metrics_writer.py, one a file."""
