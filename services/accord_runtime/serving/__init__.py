"""Serving: the process, the server, the edge around calls, settings, TLS, leases and idempotency."""
