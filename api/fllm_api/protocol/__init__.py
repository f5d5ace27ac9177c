"""Request and response bodies: one module of msgspec Structs per endpoint."""
