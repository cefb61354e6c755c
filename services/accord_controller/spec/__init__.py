"""The spec of a run: defaults, validation, and the files that it names."""
