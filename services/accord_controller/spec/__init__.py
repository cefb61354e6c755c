"""The spec of a run: its defaults, its validation, and the files that it names."""
