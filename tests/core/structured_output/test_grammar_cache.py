"""What is compiled, shared, remembered and given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from support.fake_grammar import Line

from fllm import CompiledGrammar, Constraint
from fllm.constraints import ConstString
from fllm.errors import BackendError, BackendUnavailable, RequestError
from fllm.structured_output.grammar_cache import MAX_REFUSED, REFUSAL_SECONDS, Compilation


class Compiler:
    """Refuses what ends in ``!``, fails at ``?``, and holds what begins with ``z`` until it is let go."""

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
        return Line(constraint.text)

    def close(self) -> None:
        self.go.set()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(asks: Callable[[Compilation, Compiler, Clock], Awaitable[None]], **limits: float) -> Compiler:
    compiler, clock = Compiler(), Clock()

    async def main() -> None:
        compilation = Compilation(compiler, clock=clock, **limits)  # type: ignore[arg-type]
        try:
            await asks(compilation, compiler, clock)
        finally:
            compilation.close()

    asyncio.run(main())
    return compiler


async def refused(compilation: Compilation, text: str) -> RequestError:
    with pytest.raises(RequestError) as found:
        await compilation.matcher(ConstString(text))
    return found.value


def test_a_refusal_is_remembered_for_a_while() -> None:
    async def asks(compilation: Compilation, compiler: Compiler, clock: Clock) -> None:
        first = await refused(compilation, "1!")
        clock.now += REFUSAL_SECONDS - 1
        again = await refused(compilation, "1!")
        assert (again.message, again.code) == (first.message, first.code) == ("no exclamation marks", "loud")
        assert compiler.asked == ["1!"]
        clock.now += 1
        await refused(compilation, "1!")

    assert run(asks).asked == ["1!", "1!"]


def test_the_oldest_refusal_is_forgotten_when_there_are_many() -> None:
    async def asks(compilation: Compilation, compiler: Compiler, _: Clock) -> None:
        for number in range(MAX_REFUSED + 1):
            await refused(compilation, f"{number}!")
        await refused(compilation, f"{MAX_REFUSED}!")
        await refused(compilation, "1!")
        assert len(compiler.asked) == MAX_REFUSED + 1
        await refused(compilation, "0!")

    assert run(asks).asked[-1] == "0!"


def test_a_failure_that_is_no_refusal_is_not_remembered() -> None:
    async def asks(compilation: Compilation, _: Compiler, __: Clock) -> None:
        for _time in range(2):
            with pytest.raises(BackendError, match="what"):
                await compilation.matcher(ConstString("?"))

    assert run(asks).asked == ["?", "?"]


def test_who_waits_too_long_for_others_is_given_up_and_those_who_hang_are_left_alone() -> None:
    async def asks(compilation: Compilation, compiler: Compiler, _: Clock) -> None:
        texts = ["z1", "z2", "late"]
        found = await asyncio.gather(
            *(compilation.matcher(ConstString(text)) for text in texts), return_exceptions=True
        )
        assert [type(each) for each in found] == [BackendError, BackendError, BackendUnavailable]
        assert "it takes more than 0.2 s" in str(found[0])
        await compilation.matcher(ConstString("1"))

    assert sorted(run(asks, patience=0.1, compile_seconds=0.2).asked) == ["1", "z1", "z2"]


def test_a_grammar_that_is_there_waits_for_no_compiler() -> None:
    async def asks(compilation: Compilation, compiler: Compiler, _: Clock) -> None:
        await compilation.matcher(ConstString("1"))
        busy = [asyncio.ensure_future(compilation.matcher(ConstString(text))) for text in ("z1", "z2")]
        while len(compiler.asked) < 3:
            await asyncio.sleep(0.001)
        await compilation.matcher(ConstString("1"))
        assert not any(task.done() for task in busy)
        compiler.go.set()
        await asyncio.gather(*busy)

    run(asks)


def test_a_grammar_that_was_used_last_is_kept_longest() -> None:
    async def asks(compilation: Compilation, _: Compiler, __: Clock) -> None:
        for text in ("1", "2", "1", "3", "1", "2"):
            await compilation.matcher(ConstString(text))

    assert run(asks, max_count=2).asked == ["1", "2", "3", "2"]
    assert run(asks, max_bytes=2).asked == ["1", "2", "3", "2"]
