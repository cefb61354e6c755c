"""The reference engine: Hugging Face transformers, in this process."""
