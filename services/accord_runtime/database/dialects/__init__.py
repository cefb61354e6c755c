"""Kinds of databases, one file each, chosen by the scheme of the URL; `connect` is their only user."""
