"""Judgements as values: validation, canonical forms, pairwise choices."""
