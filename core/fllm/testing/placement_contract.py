"""The contract that every placement must pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ClassVar

from msgspec import msgpack

from fllm.config import BackendConfig
from fllm.engine_host import Channel, EngineHost
from fllm.placement import PlacedEngine, Placement
from fllm.testing.backend_harness import with_timeout
from fllm.testing.placement_messages import MODULE, VERSION, Answer, Question


class PlacedProcess:
    """A process that was placed, and the connection to it."""

    def __init__(self) -> None:
        self.channel: Channel[Answer] = Channel(msgpack.Decoder(Answer).decode, self._receive)
        self.engine: PlacedEngine
        self._answers: asyncio.Queue[Answer] = asyncio.Queue()

    async def ask(self) -> Answer:
        """Return the answer of the process; raise `AssertionError` if its connection ends before."""
        self.channel.send(Question())
        answer = asyncio.create_task(self._answers.get())
        closed = asyncio.create_task(self.channel.closed.wait())
        await asyncio.wait([answer, closed], return_when=asyncio.FIRST_COMPLETED)
        closed.cancel()
        assert answer.done(), "the connection to the engine ended before it answered"
        return answer.result()

    async def exit(self, status: int) -> None:
        """Let the process exit, and wait for the end of its connection."""
        self.channel.send(Question(exit_status=status))
        await self.channel.closed.wait()

    def _receive(self, answer: Answer) -> None:
        self._answers.put_nowait(answer)


class PlacementHarness:
    """An engine host with the placement under test."""

    def __init__(self, make: Callable[[], Placement]) -> None:
        self.host = EngineHost(lambda name: lambda context: make())  # noqa: ARG005

    async def place(self, name: str = "contract") -> PlacedProcess:
        """Place a process, and return it once it has connected."""
        placed = PlacedProcess()
        config = BackendConfig(model="none", placement="tested", engine_name=name)
        placed.engine = await self.host.place(MODULE, config, placed.channel, lambda: VERSION)
        return placed


def _synchronous(test: Callable[[Any, PlacementHarness], Awaitable[None]]) -> Callable[[Any], None]:
    """Return a synchronous test that runs the coroutine with the shared harness."""

    @wraps(test)
    def run(self: PlacementContract) -> None:
        runner, harness = self.session()
        runner.run(with_timeout(self.timeout, test(self, harness)))

    del run.__dict__["__wrapped__"]  # pytest would take its arguments for fixtures
    return run


class PlacementContract:
    """Every placement passes this. It is opened once; the tests place processes that connect like engines."""

    timeout: ClassVar[float] = 120.0
    """Seconds that a test may wait before it fails."""
    _session: ClassVar[tuple[asyncio.Runner, PlacementHarness] | None] = None

    @classmethod
    def placement(cls) -> Placement:
        """Return a new placement that is not open."""
        raise NotImplementedError

    @classmethod
    def session(cls) -> tuple[asyncio.Runner, PlacementHarness]:
        """Return the event loop of the tests and the shared harness."""
        if cls._session is None:
            cls._session = asyncio.Runner(), PlacementHarness(cls.placement)
        return cls._session

    @classmethod
    def teardown_class(cls) -> None:
        """Close the placement."""
        session, cls._session = cls._session, None
        if session is not None:
            runner, harness = session
            runner.run(harness.host.close())
            runner.close()

    @_synchronous
    async def test_an_engine_that_is_placed_answers(self, harness: PlacementHarness) -> None:
        placed = await harness.place()
        answer = await placed.ask()
        assert isinstance(placed.engine.node, str), f"node must be a str, not {placed.engine.node!r}"
        assert not answer.secret_is_visible, (
            "the content of launch.stdin is among the arguments or in the environment of the process, where "
            "others can read it; write it to the standard input"
        )
        await _kill(placed)

    @_synchronous
    async def test_kill_ends_the_engine(self, harness: PlacementHarness) -> None:
        placed = await harness.place()
        await placed.ask()
        await _kill(placed)
        placed.engine.kill()  # does nothing
        await placed.channel.closed.wait()

    @_synchronous
    async def test_wait_says_how_the_engine_ended(self, harness: PlacementHarness) -> None:
        placed = await harness.place()
        waiting = [asyncio.create_task(placed.engine.wait()) for _ in range(2)]
        await placed.ask()
        assert not any(task.done() for task in waiting), "wait() returned while the engine was running"
        await placed.exit(3)
        for how in (*(await asyncio.gather(*waiting)), await placed.engine.wait()):
            assert isinstance(how, str), f"wait() must return a str, not {how!r}"
            assert how, "wait() must return how the engine ended, such as 'exit status 3'"

    @_synchronous
    async def test_a_wait_that_is_cancelled_leaves_the_engine_alone(self, harness: PlacementHarness) -> None:
        placed = await harness.place()
        waiting = asyncio.create_task(placed.engine.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await placed.ask()
        await _kill(placed)

    @_synchronous
    async def test_engines_are_placed_at_the_same_time(self, harness: PlacementHarness) -> None:
        both = await asyncio.gather(harness.place("first"), harness.place("second"))
        answers = [await placed.ask() for placed in both]
        nodes = {(placed.engine.node, answer.pid) for placed, answer in zip(both, answers, strict=True)}
        assert len(nodes) == 2, f"two engines must be two processes, not {nodes}"
        await _kill(both[0])
        await both[1].ask()
        await _kill(both[1])

    @_synchronous
    async def test_an_engine_can_be_placed_after_the_death_of_another(
        self, harness: PlacementHarness
    ) -> None:
        first = await harness.place()
        await first.exit(1)
        await first.engine.wait()
        second = await harness.place()
        await second.ask()
        await _kill(second)

    @_synchronous
    async def test_an_engine_ends_with_its_connection(self, harness: PlacementHarness) -> None:
        placed = await harness.place()
        placed.channel.close()
        await placed.engine.wait()

    @_synchronous
    async def test_close_leaves_nothing_behind(self, harness: PlacementHarness) -> None:
        other = PlacementHarness(type(self).placement)
        kept, placed = await harness.place(), await other.place()
        await other.host.close()
        await placed.channel.closed.wait()
        await placed.engine.wait()
        await kept.ask()
        await _kill(kept)

    @_synchronous
    async def test_a_placement_that_was_not_opened_can_be_closed(self, harness: PlacementHarness) -> None:  # noqa: ARG002
        await type(self).placement().close()


async def _kill(placed: PlacedProcess) -> None:
    placed.engine.kill()
    assert await placed.engine.wait(), "wait() must return how the engine ended, such as 'signal 9'"
