"""Builds and runs the Dockerfile on a machine without a container engine."""
