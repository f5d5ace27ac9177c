"""The HTTP listener: connections, their limits, and how they end."""

from fllm_api.listener.protocol import Limits
from fllm_api.listener.server import Listener

__all__ = ["Limits", "Listener"]
