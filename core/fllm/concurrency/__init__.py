"""Turns between clients, and functions that may never return."""
