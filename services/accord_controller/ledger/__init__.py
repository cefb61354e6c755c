"""The durable memory of a run: what happened, recorded before it has an effect."""
