"""The rollout service: generates samples for prompts with the active weights, on an engine of choice."""
