"""Pages of docs/reference, one module a page; each has `page() -> str`. scripts/generate_reference.py writes them."""
