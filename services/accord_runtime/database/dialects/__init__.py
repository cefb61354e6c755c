"""Kinds of databases, one file each, chosen by the scheme of the URL. Only this folder's parent uses them."""
