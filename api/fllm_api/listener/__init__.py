"""The HTTP listener: connections, their limits and timeouts, and graceful shutdown."""

from fllm_api.listener.protocol import ConnectionTimeouts
from fllm_api.listener.server import Listener

__all__ = ["ConnectionTimeouts", "Listener"]
