"""Feedback: submission, correction, retraction and import."""
