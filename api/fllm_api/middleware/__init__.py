"""ASGI middlewares, in the order in which `fllm_api.app` assembles them."""
