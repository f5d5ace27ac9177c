"""``furiosa-llm top``: a running server in a terminal."""
