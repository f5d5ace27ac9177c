"""A placement on the nodes of a Ray cluster. Ray runs in a process of its own, never in the server."""
