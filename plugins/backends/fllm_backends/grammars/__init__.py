"""Grammars: what keeps answers to a constraint."""
