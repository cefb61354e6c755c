"""How weights travel: one module for each way, chosen by URI scheme in accord_runtime/artifacts/fetch.py."""
