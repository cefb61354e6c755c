"""Runs: their management, the reconcile loop that drives them, edits and stops."""
