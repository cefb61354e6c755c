"""The console: web pages for annotators and operators; reaches the services through the SDK."""
