"""Runs as custom resources: `kubectl apply` creates a run, and its object shows the run's status and events."""
