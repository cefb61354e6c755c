"""The console: web pages for annotators and operators, a client of the other services through the SDK."""
