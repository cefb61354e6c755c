"""The trainings of this service: kept, loaded, stepped, checkpointed, published."""
