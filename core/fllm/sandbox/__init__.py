"""Child processes for work that strangers bring and that may never end."""

from fllm.sandbox.limits import Limits
from fllm.sandbox.worker import Worker

__all__ = ["Limits", "Worker"]
