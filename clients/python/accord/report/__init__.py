"""What a run came to: one data model, three forms (HTML, JSON, a table for the terminal)."""
