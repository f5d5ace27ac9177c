"""Engines: torch, and a process that holds any of them."""
