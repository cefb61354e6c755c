"""The weights that an engine serves: fetching, verification, preparation, activation."""
