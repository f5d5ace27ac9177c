"""HTTP endpoints, one module each, and the response types that they share."""
