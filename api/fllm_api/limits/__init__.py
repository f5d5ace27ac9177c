"""Rate limits, admission and fair turns between clients."""
