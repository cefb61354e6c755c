"""Losses, rewards and advantages as pure functions of tensors: no model, no state, no randomness.

Shapes are in names: B responses, R response tokens (padded), K answers to one prompt, N tokens or responses in a flat
list. Masks are boolean, true for a token that counts; masked values are never read, so NaN at a pad changes nothing.
"""
