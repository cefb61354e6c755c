"""Engines that come with Accord, found by entry point."""
