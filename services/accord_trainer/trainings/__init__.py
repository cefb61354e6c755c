"""The trainings of this service: stored, loaded, stepped, checkpointed, published."""
