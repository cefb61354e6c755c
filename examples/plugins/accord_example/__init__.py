"""One plug-in for each seam of Accord: an algorithm, a scorer, an engine, a format."""
