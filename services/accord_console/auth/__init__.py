"""Access to the console: invites, sessions, the operator's token, security headers."""
