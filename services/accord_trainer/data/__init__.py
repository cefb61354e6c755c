"""Examples as tokens and weights."""
