"""Requests, items, responses and stream events of the Responses API."""
