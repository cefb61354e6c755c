"""The rollout service: prompts into samples with the weights in force, on an engine of choice."""
