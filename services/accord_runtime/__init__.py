"""Code that every Accord service shares: serving, artifacts, database, observability. It does not import torch."""
