"""Generate requests: validation, planning, admission, responses."""
