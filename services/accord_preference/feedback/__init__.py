"""Feedback: submitted, corrected, retracted, imported."""
