"""``furiosa-llm top``: watch a running server in a terminal."""
