"""One controller for each endpoint."""
