"""The output of the command line: text, tables, JSON, progress."""
