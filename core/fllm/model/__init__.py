"""Locate a model and parse device names."""
