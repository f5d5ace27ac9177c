"""The engines of one server: placements start their processes, and they connect to it."""

from fllm.engine_host.host import EngineHost
from fllm.engine_host.process import LocalProcess, start_process

__all__ = ["EngineHost", "LocalProcess", "start_process"]
