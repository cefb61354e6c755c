"""How the command line shows things: text, tables, JSON, progress."""
