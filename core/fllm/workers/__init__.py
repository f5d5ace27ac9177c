"""Child processes for work that strangers bring and that may never end."""

from fllm.workers.limits import Limits
from fllm.workers.worker import Worker

__all__ = ["Limits", "Worker"]
