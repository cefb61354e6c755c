"""The controller as a client of the other services: connections, replicas, autoscaling, usage."""
