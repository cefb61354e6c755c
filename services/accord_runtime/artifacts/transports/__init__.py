"""Transports of weights: one module for each, chosen by URI scheme in accord_runtime/artifacts/fetch.py."""
