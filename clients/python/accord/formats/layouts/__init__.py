"""Layouts of files, one per tool; entry points name them."""
