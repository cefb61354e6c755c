"""What algorithms learn from, as tensors."""
