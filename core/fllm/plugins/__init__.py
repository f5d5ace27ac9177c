"""Find, load and validate plugins; keep the names that they offer."""
