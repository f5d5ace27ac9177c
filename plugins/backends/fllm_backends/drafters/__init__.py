"""Drafters: guess the next tokens of sequences, for speculative decoding."""
