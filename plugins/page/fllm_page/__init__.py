"""The page at `GET /`: a chat, a look inside, the machine, the plugins."""
