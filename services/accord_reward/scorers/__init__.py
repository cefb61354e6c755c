"""The scorers that come with Accord, one class per file; others plug in by entry point."""
