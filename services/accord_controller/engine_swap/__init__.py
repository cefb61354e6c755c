"""Replaces a run's rollout engine while the run is active."""
