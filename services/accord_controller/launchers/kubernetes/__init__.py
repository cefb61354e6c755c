"""Services as workloads of a Kubernetes cluster."""
