"""How a service serves: process, server, edge of every call, settings, TLS, leases, idempotency."""
