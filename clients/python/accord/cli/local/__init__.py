"""The local part of the command line: the controller's process, files."""
