"""Launchers start and find the services: as local processes, as Kubernetes workloads, or at fixed addresses."""
