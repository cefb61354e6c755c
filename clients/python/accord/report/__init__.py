"""The report of a run: one data model, rendered as HTML, JSON and a table for the terminal."""
