"""The seam to storage, and what is stored."""
