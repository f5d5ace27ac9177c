"""A backend that fronts another OpenAI-compatible server: the engine stays there, the edge is ours."""
