"""Child processes for work that strangers bring and that may never end."""

from fllm.sandbox.limits import ResourceLimits
from fllm.sandbox.worker import Worker

__all__ = ["ResourceLimits", "Worker"]
