"""Real servers for tests and benchmarks, also those of stores and services that others write."""
