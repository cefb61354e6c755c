"""The algorithms that come with Accord; each is one short file. Others plug in by entry point."""
