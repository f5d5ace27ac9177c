"""Collectors of metrics: a page for Prometheus, and a line in the log."""
