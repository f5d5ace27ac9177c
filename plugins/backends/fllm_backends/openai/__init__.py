"""A backend that forwards requests to another OpenAI-compatible server, which runs the engine."""
