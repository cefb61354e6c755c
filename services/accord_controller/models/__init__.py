"""Models that runs have produced: the registry and where they come from."""
