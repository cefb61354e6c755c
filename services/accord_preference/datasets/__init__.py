"""Immutable snapshots of prompts and feedback, and the weights of their records."""
