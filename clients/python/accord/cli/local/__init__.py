"""What the command line does on this machine: the controller's process, files."""
