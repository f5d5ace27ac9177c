"""The commands `furiosa-llm chat` and `furiosa-llm run`."""
