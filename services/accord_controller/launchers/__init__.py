"""What starts and finds the services: local processes, Kubernetes workloads, or fixed addresses."""
