"""Weights in transit: published, served, fetched by URI scheme, verified."""
