"""A service's reports about itself: metrics and resource usage."""
