"""Serving glue that every Accord service shares: serving, artifacts, database, observability. No torch here."""
