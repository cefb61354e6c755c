"""The weights that an engine serves: fetched, verified, prepared, activated."""
