"""Runs as custom resources: `kubectl apply` is CreateRun, and what a run does is seen in its status and events."""
