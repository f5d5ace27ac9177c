"""Builds and runs the Dockerfile where there is no container engine."""
