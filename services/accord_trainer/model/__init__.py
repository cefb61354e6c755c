"""The models under training: policy, heads, packing, log-probabilities, optimizer, and their cost."""
