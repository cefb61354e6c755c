"""vLLM, in processes that this service starts."""
