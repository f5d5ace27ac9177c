"""Child processes for third-party input that may take forever to process."""

from fllm.sandbox.limits import ResourceLimits
from fllm.sandbox.worker import Worker

__all__ = ["ResourceLimits", "Worker"]
