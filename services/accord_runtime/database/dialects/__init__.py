"""Kinds of databases, one file each, chosen by the scheme of the URL. Only the parent package uses them."""
