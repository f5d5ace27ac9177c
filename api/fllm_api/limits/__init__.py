"""Rate limits, admission, and fair locking between clients."""
