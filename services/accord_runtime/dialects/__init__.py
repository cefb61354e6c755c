"""Kinds of databases, one file each, chosen by the scheme of the URL: `accord_runtime.database` is their only user."""
