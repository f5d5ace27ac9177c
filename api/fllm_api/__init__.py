"""The OpenAI-compatible HTTP API and the command line of furiosa-llm."""
