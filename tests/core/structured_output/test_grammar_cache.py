"""The cache of compiled grammars."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from support.fake_grammar import LineGrammar

from fllm import CompiledGrammar, Constraint, GrammarMatcher
from fllm.concurrency.hung_threads import MAX_HUNG_OF_CLIENT
from fllm.constraints import ConstString
from fllm.errors import BackendError, BackendUnavailable, RequestError
from fllm.structured_output.grammar_cache import MAX_CHARACTERS, MAX_REJECTED, REJECTION_SECONDS, GrammarCache


class Compiler:
    """Rejects texts that end in ``!``, fails at ``?``, and blocks at texts that start with ``z``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        self.slow = threading.Event()
        self.slow.set()

    def compile(self, constraint: Constraint) -> CompiledGrammar:
        assert isinstance(constraint, ConstString)
        self.asked.append(constraint.text)
        if constraint.text.startswith("z"):
            self.go.wait()
        if constraint.text.endswith("!"):
            raise RequestError("no exclamation marks", code="loud")
        if constraint.text == "?":
            raise ValueError("what")
        return SlowGrammar(self.slow) if constraint.text == "slow" else LineGrammar(constraint.text)

    def close(self) -> None:
        self.go.set()


class SlowGrammar(LineGrammar):
    """Its matchers take until the event is set."""

    def __init__(self, go: threading.Event) -> None:
        super().__init__("slow")
        self._go = go

    def matcher(self) -> GrammarMatcher:
        self._go.wait()
        return super().matcher()


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


def test_compilations_and_their_errors_are_counted_and_those_in_the_cache_are_not() -> None:
    async def scenario(cache: GrammarCache, _: Compiler, __: Clock) -> None:
        for text in ("1", "1", "1!", "1!"):
            with suppress(RequestError):
                await cache.matcher(ConstString(text))
        assert (cache.compilations, cache.errors) == (2, 1)
        assert cache.seconds > 0

    run(scenario)


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
    async def scenario(cache: GrammarCache, _: Compiler, __: Clock) -> None:
        texts = {"z1": "a", "z2": "b", "late": "a"}
        found = await asyncio.gather(
            *(cache.matcher(ConstString(text), client=client) for text, client in texts.items()),
            return_exceptions=True,
        )
        assert [type(each) for each in found] == [BackendError, BackendError, BackendUnavailable]
        assert "it takes more than 0.2 s" in str(found[0])
        assert "waited for 0.1 s" in str(found[2])
        await cache.matcher(ConstString("1"), client="a")

    assert sorted(run(scenario, queue_timeout=0.1, compile_timeout=0.2).asked) == ["1", "z1", "z2"]


def test_a_client_whose_compilations_hang_gets_no_more_threads() -> None:
    async def scenario(cache: GrammarCache, _: Compiler, __: Clock) -> None:
        for number in range(MAX_HUNG_OF_CLIENT):
            with pytest.raises(BackendError, match="takes more than"):
                await cache.matcher(ConstString(f"z{number}"), client="a")
        with pytest.raises(BackendUnavailable, match="hang"):
            await cache.matcher(ConstString("1"), client="a")
        await cache.matcher(ConstString("1"), client="b")

    assert run(scenario, compile_timeout=0.01).asked.count("1") == 1


def test_a_panic_is_a_failure() -> None:
    class PanicException(BaseException):
        """What a panic of a Rust extension raises."""

    async def scenario(cache: GrammarCache, compiler: Compiler, _: Clock) -> None:
        def compile(constraint: Constraint) -> CompiledGrammar:
            raise PanicException("what")

        compiler.compile = compile  # type: ignore[method-assign]
        with pytest.raises(BackendError, match="PanicException: what"):
            await cache.matcher(ConstString("1"))

    run(scenario)


def request(cache: GrammarCache, text: str, client: str) -> asyncio.Task[GrammarMatcher]:
    return asyncio.ensure_future(cache.matcher(ConstString(text), client=client))


async def asked(compiler: Compiler, *texts: str) -> None:
    """Wait until exactly these texts have been compiled, or are being compiled."""
    while len(compiler.asked) < len(texts):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    assert sorted(compiler.asked) == sorted(texts)


def test_a_grammar_that_is_there_waits_for_no_compiler() -> None:
    async def scenario(cache: GrammarCache, compiler: Compiler, _: Clock) -> None:
        await cache.matcher(ConstString("1"), client="a")
        busy = [request(cache, text, client) for text, client in (("z1", "a"), ("z2", "b"), ("z3", "c"))]
        await asked(compiler, "1", "z1", "z2", "z3")
        await cache.matcher(ConstString("1"), client="a")
        assert not any(task.done() for task in busy)
        compiler.go.set()
        await asyncio.gather(*busy)

    run(scenario)


def test_a_client_waits_only_for_its_own_compilations() -> None:
    async def scenario(cache: GrammarCache, compiler: Compiler, _: Clock) -> None:
        busy = [request(cache, f"z{number}", "a") for number in range(100)]
        await asked(compiler, "z0")
        await cache.matcher(ConstString("1"), client="b")
        assert not any(task.done() for task in busy)
        compiler.go.set()
        await asyncio.gather(*busy)

    run(scenario)


def test_a_compilation_ends_with_the_last_request_unless_it_has_started() -> None:
    async def scenario(cache: GrammarCache, compiler: Compiler, _: Clock) -> None:
        running, *waiting = [request(cache, text, "a") for text in ("z1", "2", "3", "3")]
        await asked(compiler, "z1")
        for task in (running, *waiting[:2]):
            task.cancel()
        latecomer = request(cache, "4", "a")
        await asked(compiler, "z1")  # the client's only turn lasts until its abandoned compilation ends
        compiler.go.set()
        await asyncio.gather(waiting[2], latecomer)
        assert compiler.asked == ["z1", "3", "4"]
        await cache.matcher(ConstString("z1"), client="b")  # what was abandoned is in the cache

    assert run(scenario).asked == ["z1", "3", "4"]


def test_clients_that_wait_for_the_same_constraint_share_the_first_turn() -> None:
    async def scenario(cache: GrammarCache, compiler: Compiler, _: Clock) -> None:
        busy = request(cache, "z1", "a")
        shared = [request(cache, "2", "a") for _ in range(2)]
        await asked(compiler, "z1")
        await asyncio.gather(request(cache, "2", "b"), *shared)
        assert not busy.done()
        compiler.go.set()
        await busy

    assert run(scenario).asked == ["z1", "2"]


def test_constraints_that_are_too_long_or_too_many_wait_for_nothing() -> None:
    async def scenario(cache: GrammarCache, compiler: Compiler, _: Clock) -> None:
        assert "131073 characters" in (await refused(cache, "." * (MAX_CHARACTERS + 1))).message
        texts = (f"z{number:{MAX_CHARACTERS - 1}}" for number in range(66))
        busy = [request(cache, next(texts), "a")]
        while not compiler.asked:
            await asyncio.sleep(0.001)
        busy += [request(cache, next(texts), "a") for _ in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(BackendUnavailable, match="too many of your grammars"):
            await cache.matcher(ConstString(next(texts)), client="a")
        await cache.matcher(ConstString("1" * MAX_CHARACTERS), client="b")
        for task in busy:
            task.cancel()
        await asyncio.sleep(0.01)
        assert not cache._queued
        assert len(cache._pending) == 1

    run(scenario)


def test_slow_matchers_of_a_client_delay_no_other_client() -> None:
    async def scenario(cache: GrammarCache, compiler: Compiler, _: Clock) -> None:
        await cache.matcher(ConstString("slow"), client="a")
        compiler.slow.clear()
        busy = [request(cache, "slow", "a") for _ in range(9)]
        left = request(cache, "slow", "a")
        await asyncio.sleep(0.02)
        left.cancel()
        await cache.matcher(ConstString("1"), client="b")
        assert not any(task.done() for task in busy)
        compiler.slow.set()
        await asyncio.gather(*busy)

    run(scenario)


def test_a_grammar_that_was_used_last_is_kept_longest() -> None:
    async def scenario(cache: GrammarCache, _: Compiler, __: Clock) -> None:
        for text in ("1", "2", "1", "3", "1", "2"):
            await cache.matcher(ConstString(text))

    assert run(scenario, max_count=2).asked == ["1", "2", "3", "2"]
    assert run(scenario, max_bytes=2).asked == ["1", "2", "3", "2"]


def test_a_client_with_many_grammars_evicts_only_its_own() -> None:
    async def scenario(cache: GrammarCache, _: Compiler, __: Clock) -> None:
        await cache.matcher(ConstString("1"), client="a")
        for number in range(2, 9):
            await cache.matcher(ConstString(str(number)), client="b")
        await cache.matcher(ConstString("1"), client="a")

    for limits in ({"max_count": 4}, {"max_bytes": 4}):
        assert run(scenario, **limits).asked == [*"12345678"]
