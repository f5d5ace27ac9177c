"""The grammar state of one constrained sequence: its matcher, and the bitmask of its next token."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from threading import Event

from fllm.containment import contained
from fllm.errors import BackendError, BackendUnavailable, FllmError, RequestError, format_error
from fllm.structured_output.interfaces import ForcesTokens, GrammarMatcher, Vocabulary
from fllm.structured_output.mask_worker import MaskWorker

SLOW_SECONDS = 0.005
"""Processor time of a token above which a matcher is slow."""
DECAY = 0.9
"""How much of the processor time of the slowest token counts after each other token."""
CPU_SECONDS = 2.0
"""Processor time that the matcher of a sequence may use, besides `TOKEN_CPU_SECONDS`."""
TOKEN_CPU_SECONDS = 0.01
"""Processor time that it may use for each token. The slowest schemas in use take 10 ms for a few tokens."""
HANG_SECONDS = 5.0
"""Seconds after which a call of a matcher is considered hung."""


def require_text(matcher: GrammarMatcher, bitmask_size: Callable[[], int]) -> None:
    """Raise `RequestError` if the grammar of a new matcher allows no text at all, such as ``a = a "b"``."""
    mask = memoryview(bytearray(4 * bitmask_size())).cast("i")
    matcher.fill_bitmask(mask)
    if not any(mask) and not matcher.is_accepting:
        raise RequestError("the grammar allows no text at all")


def too_many_hang() -> BackendUnavailable:
    """Return the error of a grammar that is not used because too many threads hang in others."""
    return BackendUnavailable("too many threads hang in grammars: try again later, or without a grammar")


class GrammarState:
    """Drives a matcher, whose errors fail only this sequence.

    Its worker calls the matcher, in `accept` and `fill`. The engine thread calls all other methods::

        start ─▶ wait_until_accepted ─▶ take_forced ─▶ wait_for_mask ─ sample ─▶ accept_token ─┐
                         ▲                                                                   │
                         └───────────────────────────────────────────────────────────────────┘
    """

    def __init__(
        self,
        matcher: GrammarMatcher,
        vocabulary: Vocabulary,
        worker: MaskWorker,
        *,
        client: str = "",
        forces: bool = True,
    ) -> None:
        """Set up the state; with ``forces=False``, tokens without an alternative are sampled like others."""
        self.client = client
        self.cancelled = False
        """Whether the sequence has ended."""
        self.error: FllmError | None = None
        """Why the sequence can't continue."""
        self.may_stop = False
        """Whether, under the last mask, a stop token ends the text; otherwise it is an ordinary token."""
        self.exhausted = False
        """Whether the text is complete and nothing may follow."""
        self.missed_mask = False
        """Whether the last row of the sequence did not get its mask in time. What it sampled is dropped."""
        self._matcher = matcher
        self._forcing = matcher if forces and isinstance(matcher, ForcesTokens) else None
        self._worker = worker
        self._eos_token_ids = vocabulary.eos_token_ids
        self._buffer = bytearray(4 * vocabulary.bitmask_size)
        self._zeros = bytes(len(self._buffer))
        self._mask = memoryview(self._buffer).cast("i")
        self._all_allowed = memoryview(b"\xff" * len(self._buffer)).cast("i")
        self._stop_ids: Collection[int] = ()
        self._token_ids: Sequence[int] = ()
        self._min_left = self._max_left = 0
        self._forced: list[int] = []
        self._accepted = Event()
        self._computed = Event()
        self._awaited = False
        """Whether the engine may sleep until the worker has done its part."""
        self._tokens = 0
        self._cpu_seconds = 0.0
        self._token_cpu_seconds = 0.0
        self._typical_cpu_seconds = 0.0
        # An error of the grammar fails only this sequence, also a panic of a Rust extension.
        self._contained = contained(self._fail_because, base_exceptions=True)

    @property
    def slow(self) -> bool:
        """Whether the latest tokens took much processor time."""
        return self._typical_cpu_seconds > SLOW_SECONDS

    def start(
        self, stop_ids: Collection[int], *, generated: Sequence[int] = (), min_left: int, max_left: int
    ) -> None:
        """Start to compute the tokens that begin the text, and the first mask. Others follow each token.

        The text continues ``generated``, if another engine has begun it.
        If the text is complete, a mask allows stop tokens after ``min_left`` tokens, or if nothing else may
        follow. No more than ``max_left`` tokens are forced.
        """
        self._stop_ids, self._min_left, self._max_left = stop_ids, min_left, max_left
        self._token_ids = generated
        if self._worker.hung.too_many(self.client):
            self._fail_with(too_many_hang())
            self._accepted.set()
            self._computed.set()
        else:
            self._worker.submit(self, accept=True)

    def take_forced(self) -> list[int]:
        """Return the tokens that must follow the accepted one. The matcher has accepted them as well."""
        forced, self._forced = self._forced, []
        return forced

    def begin_row(self) -> None:
        """Reset `missed_mask`, before another row."""
        self.missed_mask = False

    def is_mask_near(self) -> bool:
        """Return whether a row may count on its mask. If not, the engine is woken once this has changed."""
        return self._is_set(self._computed) or not (self.slow or self.missed_mask)

    def wait_for_mask(self) -> memoryview:
        """Return the mask once it is computed.

        If it is late, or the sequence has failed, return a mask of all tokens, whose sample is dropped.
        """
        if not self._wait(self._computed):
            self.missed_mask = True
        return self._all_allowed if self.missed_mask or self.error else self._mask

    def accept_token(self, token_id: int, *, min_left: int, max_left: int) -> None:
        """Start to advance the matcher by a sampled token that does not end the text, and the next mask.

        The limits are those of `start`, after this token.
        """
        self._token_ids, self._min_left, self._max_left = (token_id,), min_left, max_left
        self._accepted.clear()
        self._computed.clear()
        self._worker.submit(self, accept=True)

    def wait_until_accepted(self) -> bool:
        """Return whether the matcher has accepted the token. If not, the engine is woken once it has."""
        return self._wait(self._accepted) or self._is_set(self._accepted)

    def is_accepted(self) -> bool:
        """Return the same without waiting."""
        return self._is_set(self._accepted)

    def cancel(self) -> None:
        """Skip what is not computed yet: the sequence has ended."""
        self.cancelled = True

    def accept(self) -> bool:
        """Advance the matcher, in the worker. Return whether its next mask remains to be computed."""
        self._typical_cpu_seconds *= DECAY
        self._token_cpu_seconds = 0.0
        filled = False
        with self._measured(), self._contained:
            if not self.cancelled and self._advance() and self._tokens and self._matcher.is_accepting:
                self._fill()
                filled = True
                self.exhausted = self._buffer == self._zeros
                if not self.exhausted:
                    self._allow_stop_tokens()
        is_last = len(self._forced) == self._max_left
        self._signal(self._accepted)
        if filled or is_last:
            self._signal(self._computed)
        return not (filled or is_last)

    def fill(self) -> None:
        """Compute the mask, in the worker."""
        with self._measured(), self._contained:
            if not self.cancelled:
                self._fill()
                self._allow_stop_tokens()
        self._signal(self._computed)

    def is_overdue(self, cpu_seconds: float, seconds: float) -> bool:
        """Return whether a call takes too much, which has taken this long so far. If so, fail."""
        if self._cpu_seconds + cpu_seconds > self._cpu_limit:
            self._fail_as_slow()
        elif seconds > HANG_SECONDS:
            reason = f"it took more than {HANG_SECONDS:g} s to find the next token"
            if cpu_seconds > SLOW_SECONDS:  # it computes, but the machine is busy
                self._fail_with(RequestError(f"the grammar is too slow: {reason}"))
            else:
                self._fail(reason)
        else:
            return False
        self._accepted.set()
        self._computed.set()
        return True

    def _advance(self) -> bool:
        """Accept the sampled tokens, and those that must follow. Return whether all are accepted."""
        if not all(self._accept(token_id, "sampled") for token_id in self._token_ids):
            return False
        if self._forcing is not None and self._max_left:
            self._forced = list(self._forcing.forced_tokens())[: self._max_left]
        return all(self._accept(token_id, "forced") for token_id in self._forced)

    def _accept(self, token_id: int, origin: str) -> bool:
        self._tokens += 1
        accepted = self._matcher.accept_token(token_id)
        if not accepted:
            self._fail(f"it does not allow the token {token_id} that was {origin}")
        return accepted

    @property
    def _cpu_limit(self) -> float:
        return CPU_SECONDS + TOKEN_CPU_SECONDS * self._tokens

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Add up the processor time of a block in the worker. A sequence that takes too much fails."""
        start = time.thread_time()
        yield
        used = time.thread_time() - start
        self._cpu_seconds += used
        self._token_cpu_seconds += used
        self._typical_cpu_seconds = max(self._typical_cpu_seconds, self._token_cpu_seconds)
        if self._cpu_seconds > self._cpu_limit:
            self._fail_as_slow()

    def _wait(self, event: Event) -> bool:
        return event.is_set() or (not self.slow and self._worker.wait(event))

    def _is_set(self, event: Event) -> bool:
        """Return whether an event is set. If not, the engine is woken when it is."""
        if not event.is_set():
            self._awaited = True
        return event.is_set()

    def _signal(self, event: Event) -> None:
        event.set()
        if self._awaited:
            self._awaited = False
            self._worker.wake_engine()

    def _fail_because(self, error: BaseException) -> None:
        if isinstance(error, RequestError):
            self._fail_with(error)
        else:
            self._fail(format_error(error))

    def _fail(self, reason: str) -> None:
        self._fail_with(BackendError(f"the grammar failed: {reason}"))

    def _fail_as_slow(self) -> None:
        self._fail_with(
            RequestError(
                f"the grammar is too slow: it took more than {self._cpu_limit:.3g} s of processor time "
                f"to find which tokens may follow the first {self._tokens}"
            )
        )

    def _fail_with(self, error: FllmError) -> None:
        self.error = self.error or error

    def _fill(self) -> None:
        self._matcher.fill_bitmask(self._mask)
        for token in self._eos_token_ids:
            self._buffer[token // 8] &= ~(1 << token % 8)

    def _allow_stop_tokens(self) -> None:
        """Allow stop tokens in the mask where the text may end."""
        stop_allowed = self._min_left <= len(self._forced)
        self.may_stop = self._matcher.is_accepting and (stop_allowed or self._buffer == self._zeros)
        if self.may_stop:
            for token in self._stop_ids:
                self._buffer[token // 8] |= 1 << token % 8
        if self._buffer == self._zeros:
            self._fail("it allows no token of the vocabulary here")
