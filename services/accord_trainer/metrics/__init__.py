"""The metrics of preferences, and the writers of every step's metrics."""
