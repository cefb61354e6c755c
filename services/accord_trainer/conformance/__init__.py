"""The checks that every training algorithm must pass: `python -m accord_trainer.conformance NAME`."""
