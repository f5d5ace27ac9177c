"""The server for one request: what route handlers, ours and those of plugins, receive."""
