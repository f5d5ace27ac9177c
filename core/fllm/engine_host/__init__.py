"""The engines of one server: placements start their processes, and they connect to it."""

from fllm.engine_host.addresses import reachable_address
from fllm.engine_host.channel import Channel
from fllm.engine_host.dial import dial
from fllm.engine_host.frames import FrameError
from fllm.engine_host.host import EngineHost
from fllm.engine_host.process import LocalProcess, start_process
from fllm.engine_host.ticket import Ticket, read_ticket

__all__ = [
    "Channel",
    "EngineHost",
    "FrameError",
    "LocalProcess",
    "Ticket",
    "dial",
    "reachable_address",
    "read_ticket",
    "start_process",
]
