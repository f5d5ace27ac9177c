"""Several models in one server: what is loaded, which requests wait for it, and what makes room."""
