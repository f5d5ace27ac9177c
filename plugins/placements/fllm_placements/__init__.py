"""Placements that run engines on other machines."""
