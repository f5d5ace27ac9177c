"""The cache of compiled grammars."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from support.fake_grammar import LineGrammar

from fllm import CompiledGrammar, Constraint
from fllm.constraints import ConstString
from fllm.errors import BackendError, BackendUnavailable, RequestError
from fllm.structured_output.grammar_cache import MAX_REJECTED, REJECTION_SECONDS, GrammarCache


class Compiler:
    """Rejects texts that end in ``!``, fails at ``?``, and blocks at texts that start with ``z``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()

    def compile(self, constraint: Constraint) -> CompiledGrammar:
        assert isinstance(constraint, ConstString)
        self.asked.append(constraint.text)
        if constraint.text.startswith("z"):
            self.go.wait()
        if constraint.text.endswith("!"):
            raise RequestError("no exclamation marks", code="loud")
        if constraint.text == "?":
            raise ValueError("what")
        return LineGrammar(constraint.text)

    def close(self) -> None:
        self.go.set()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(scenario: Callable[[GrammarCache, Compiler, Clock], Awaitable[None]], **limits: float) -> Compiler:
    compiler, clock = Compiler(), Clock()

    async def main() -> None:
        cache = GrammarCache(compiler, clock=clock, **limits)  # type: ignore[arg-type]
        try:
            await scenario(cache, compiler, clock)
        finally:
            cache.close()

    asyncio.run(main())
    return compiler


async def refused(cache: GrammarCache, text: str) -> RequestError:
    with pytest.raises(RequestError) as found:
        await cache.matcher(ConstString(text))
    return found.value


def test_a_rejection_is_cached_for_a_while() -> None:
    async def scenario(cache: GrammarCache, compiler: Compiler, clock: Clock) -> None:
        first = await refused(cache, "1!")
        clock.now += REJECTION_SECONDS - 1
        again = await refused(cache, "1!")
        assert (again.message, again.code) == (first.message, first.code) == ("no exclamation marks", "loud")
        assert compiler.asked == ["1!"]
        clock.now += 1
        await refused(cache, "1!")

    assert run(scenario).asked == ["1!", "1!"]


def test_the_oldest_rejection_is_evicted_when_there_are_many() -> None:
    async def scenario(cache: GrammarCache, compiler: Compiler, _: Clock) -> None:
        for number in range(MAX_REJECTED + 1):
            await refused(cache, f"{number}!")
        await refused(cache, f"{MAX_REJECTED}!")
        await refused(cache, "1!")
        assert len(compiler.asked) == MAX_REJECTED + 1
        await refused(cache, "0!")

    assert run(scenario).asked[-1] == "0!"


def test_a_failure_is_not_cached() -> None:
    async def scenario(cache: GrammarCache, _: Compiler, __: Clock) -> None:
        for _time in range(2):
            with pytest.raises(BackendError, match="what"):
                await cache.matcher(ConstString("?"))

    assert run(scenario).asked == ["?", "?"]


def test_constraints_that_wait_too_long_fail_and_hanging_compilers_are_abandoned() -> None:
    async def scenario(cache: GrammarCache, compiler: Compiler, _: Clock) -> None:
        texts = ["z1", "z2", "late"]
        found = await asyncio.gather(
            *(cache.matcher(ConstString(text)) for text in texts), return_exceptions=True
        )
        assert [type(each) for each in found] == [BackendError, BackendError, BackendUnavailable]
        assert "it takes more than 0.2 s" in str(found[0])
        await cache.matcher(ConstString("1"))

    assert sorted(run(scenario, queue_timeout=0.1, compile_timeout=0.2).asked) == ["1", "z1", "z2"]


def test_a_grammar_that_is_there_waits_for_no_compiler() -> None:
    async def scenario(cache: GrammarCache, compiler: Compiler, _: Clock) -> None:
        await cache.matcher(ConstString("1"))
        busy = [asyncio.ensure_future(cache.matcher(ConstString(text))) for text in ("z1", "z2")]
        while len(compiler.asked) < 3:
            await asyncio.sleep(0.001)
        await cache.matcher(ConstString("1"))
        assert not any(task.done() for task in busy)
        compiler.go.set()
        await asyncio.gather(*busy)

    run(scenario)


def test_a_grammar_that_was_used_last_is_kept_longest() -> None:
    async def scenario(cache: GrammarCache, _: Compiler, __: Clock) -> None:
        for text in ("1", "2", "1", "3", "1", "2"):
            await cache.matcher(ConstString(text))

    assert run(scenario, max_count=2).asked == ["1", "2", "3", "2"]
    assert run(scenario, max_bytes=2).asked == ["1", "2", "3", "2"]
