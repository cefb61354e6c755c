"""What a service reports about itself: metrics and resource usage."""
