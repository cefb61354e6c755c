"""The scorers that come with Accord, one class a file; others come by entry point."""
