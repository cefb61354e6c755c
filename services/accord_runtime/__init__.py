"""Serving glue that every Accord service shares: server, interceptors, settings, artifacts, plugins. No torch here."""
