"""The server's side of its Ray driver."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from contextlib import suppress
from importlib import metadata

from msgspec import msgpack

from fllm import BackendUnavailable, UserError
from fllm_placements.ray import messages
from fllm_placements.ray.actor import DISTRIBUTION
from fllm_placements.ray.messages import Message, ToServer

OPEN_SECONDS = 30.0
"""Time to join a cluster that accepts connections."""
CONNECT_SECONDS = 5.0
"""Time to find out that there is no cluster at an address."""
STOP_SECONDS = 10.0
"""Time for the driver to end its actors."""
MAX_LINE_BYTES = 2**20
"""Longer lines of engines are dropped."""
LAST_LINES = 10
"""Lines of output that are logged when the driver dies."""
ENGINE_LINE = re.compile(r"^(?:\x1b\[\d+m)?\((?!raylet)[^()]* pid=\d[^()]*\)(?:\x1b\[0m)? (.*)")
"""A line that an engine wrote on its node, and which Ray brought here."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",  # engines may repeat themselves
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # an engine without GPUs sees none
}
"""Environment of the driver, unless it is set."""

AUTO = "auto"

log = logging.getLogger("fllm.placement.ray")


class RayEngine:
    """An engine on a node of the cluster: a `PlacedEngine`."""

    def __init__(self, id: str, driver: DriverProcess) -> None:
        self.node = ""
        self._id = id
        self._driver = driver
        loop = asyncio.get_running_loop()
        self._placed: asyncio.Future[str] = loop.create_future()
        self._ended: asyncio.Future[str] = loop.create_future()

    async def wait(self) -> str:
        """Wait until it has ended; return how."""
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        """Kill it if it has not ended."""
        if not self._ended.done():
            self._driver.send(messages.Kill(self._id))

    def placed(self, node: str) -> None:
        """Record where it runs."""
        self.node = node
        if not self._placed.done():
            self._placed.set_result(node)

    def end(self, reason: str) -> None:
        """Record how it ended."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def running(self) -> RayEngine:
        """Return the engine once it runs. Raise `BackendUnavailable` if it ends before."""
        await asyncio.wait([self._placed, self._ended], return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            raise BackendUnavailable(self._ended.result())
        return self


class DriverProcess:
    """A process that is connected to a Ray cluster: see `fllm_placements.ray.driver`."""

    def __init__(self, process: Process) -> None:
        self.address = ""
        """Address of this machine in the cluster."""
        self.ended = False
        self._process = process
        self._opened: asyncio.Future[messages.Opened] = asyncio.get_running_loop().create_future()
        self._engines: dict[str, RayEngine] = {}
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._stopping = False
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_lines())]

    @classmethod
    async def start(cls, address: str) -> DriverProcess:
        """Start a driver, connected to the cluster at ``address``. Raise `UserError` if that fails."""
        if address != AUTO:
            await _check_reachable(address)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "fllm_placements.ray.driver"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=ENVIRONMENT | os.environ,
            limit=MAX_LINE_BYTES,
            start_new_session=True,  # a signal of the terminal must not end it before the server has drained
        )
        driver = cls(process)
        driver.send(messages.Open(address, metadata.version(DISTRIBUTION)))
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                driver.address = (await driver._opened).address
        except BaseException as error:  # passed on: the process must not stay
            process.kill()
            await driver.stop()
            if isinstance(error, TimeoutError):
                raise UserError(
                    f"can't join the Ray cluster at {address}: it does not respond, or this machine is not "
                    f"one of its nodes (ray start --address {address} --num-cpus 0)"
                ) from None
            raise
        return driver

    async def place(self, place: messages.Place) -> RayEngine:
        """Return an engine that runs. Raise `BackendUnavailable` if it can't be started."""
        id = place.launch.id
        engine = self._engines[id] = RayEngine(id, self)
        if self.ended:
            engine.end("the Ray driver has ended")
        self.send(place)
        try:
            return await engine.running()
        except asyncio.CancelledError:
            engine.kill()
            raise

    def send(self, message: Message) -> None:
        """Send a message, unless the driver has ended."""
        if self._process.stdin is not None and not self.ended:
            self._process.stdin.write(messages.frame(message))

    async def stop(self) -> None:
        """End the driver and its engines."""
        self._stopping = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await asyncio.wait(self._tasks)

    async def _read(self) -> None:
        assert self._process.stdout is not None, "it is a pipe"
        decoder = msgpack.Decoder(ToServer)
        while (message := await messages.read(self._process.stdout, decoder)) is not None:
            self._receive(message)
        self.ended = True
        if not self._stopping:
            log.error("the Ray driver died; its last lines:\n%s", "\n".join(self._lines))
        if not self._opened.done():
            self._opened.set_exception(UserError("the Ray driver died while it connected"))
        for engine in self._engines.values():
            engine.end("the Ray driver ended")
        self._engines.clear()

    def _receive(self, message: ToServer) -> None:
        match message:
            case messages.Opened() | messages.Refused() if self._opened.done():
                pass  # it was too late
            case messages.Opened():
                self._opened.set_result(message)
            case messages.Refused(reason=reason):
                self._opened.set_exception(UserError(f"the Ray cluster can't be used: {reason}"))
            case messages.Waiting(id=id, reason=reason):
                log.warning("%s waits: %s", id, reason)
            case messages.Placed(id=id, node=node):
                log.info("%s runs on %s", id, node)
                self._engines[id].placed(node)
            case messages.Ended(id=id, reason=reason):
                self._engines.pop(id).end(reason)

    async def _read_lines(self) -> None:
        """Write what engines write to their standard error to the server's, and log what Ray says."""
        assert self._process.stderr is not None, "it is a pipe"
        while not self._process.stderr.at_eof():
            try:
                line = (await self._process.stderr.readline()).decode(errors="replace").rstrip()
            except ValueError:  # the line was too long, and is dropped
                continue
            if written := ENGINE_LINE.match(line):
                sys.stderr.write(f"{written[1]}\n")
            elif line:
                self._lines.append(line)
                log.debug("Ray: %s", line)


async def _check_reachable(address: str) -> None:
    """Raise `UserError` at once for an address at which Ray itself would wait for a minute."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError, OverflowError) as error:
        reason = str(error) or f"no response within {CONNECT_SECONDS:g} s"
        raise UserError(f"there is no Ray cluster at {address}: {reason}") from error
    writer.close()
