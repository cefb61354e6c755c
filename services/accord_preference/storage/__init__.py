"""The seam to storage, its rows, and its implementations."""
