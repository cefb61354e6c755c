"""Services as processes on this machine."""
