"""Pages of docs/reference, one module per page, each with `page() -> str`. scripts/generate_reference.py writes
them."""
