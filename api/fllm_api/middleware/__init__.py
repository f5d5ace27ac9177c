"""ASGI middlewares; `fllm_api.app` assembles them and explains their order."""
