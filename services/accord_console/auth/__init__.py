"""Who may use the console: invites, sessions, the operator's token, response headers."""
