"""Layouts of files, one a file, by the name that `--format` takes."""
