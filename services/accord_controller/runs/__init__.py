"""Runs: managed, driven by a pure reconcile, edited, stopped."""
