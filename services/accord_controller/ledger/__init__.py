"""The durable memory of a run: each result is recorded before it has an effect."""
