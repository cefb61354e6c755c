"""The command line, one file for each group of commands; heavy packages are imported on first use."""
