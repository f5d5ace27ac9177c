"""What travels over HTTP: one module of msgspec Structs for each endpoint."""
