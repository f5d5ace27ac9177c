"""Validate, render and tokenize request bodies for the pipeline."""
