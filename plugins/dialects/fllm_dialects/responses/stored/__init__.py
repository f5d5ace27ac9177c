"""Responses and conversations that are stored, and responses that are generated in the background."""
