"""Deployment: predict with a package, in a container or as a service."""
