"""Several rollout services, used as one."""
