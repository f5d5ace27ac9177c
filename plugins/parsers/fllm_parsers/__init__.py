"""Tool-call parsers, reasoning parsers and chat-template resolvers."""
