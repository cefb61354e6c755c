"""Models that runs have produced: the registry and the lineage."""
