"""The grammar state of one constrained sequence: its matcher, and the bitmask of its next token."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from threading import Event

from fllm.containment import contained
from fllm.errors import BackendError, RequestError, format_error
from fllm.structured_output.interfaces import GrammarMatcher, Vocabulary
from fllm.structured_output.mask_worker import MASK_TIMEOUT, MaskWorker


def require_text(matcher: GrammarMatcher, bitmask_size: Callable[[], int]) -> None:
    """Raise `RequestError` if the grammar of a new matcher allows no text at all, such as ``a = a "b"``."""
    mask = memoryview(bytearray(4 * bitmask_size())).cast("i")
    matcher.fill_bitmask(mask)
    if not any(mask) and not matcher.is_accepting:
        raise RequestError("the grammar allows no text at all")


class GrammarState:
    """Drives a matcher, whose errors fail only this sequence.

    The mask worker computes masks. Everything else happens in the engine thread, and never while a mask is
    being computed.
    """

    def __init__(self, matcher: GrammarMatcher, vocabulary: Vocabulary, worker: MaskWorker) -> None:
        self._matcher = matcher
        self._worker = worker
        self._eos_token_ids = vocabulary.eos_token_ids
        self._buffer = bytearray(4 * vocabulary.bitmask_size)
        self._zeros = bytes(len(self._buffer))
        self._mask = memoryview(self._buffer).cast("i")
        self._computed = Event()
        # An error of the grammar fails only this sequence.
        self._contained = contained(lambda error: self._fail(format_error(error)))
        self.error: BackendError | None = None
        """Why the sequence can't continue."""
        self.may_stop = False
        """Whether, under the last mask, a stop token ends the text; otherwise it is an ordinary token."""
        self.exhausted = False
        """Whether the text is complete and nothing may follow."""

    def accept_token(self, token_id: int) -> None:
        """Advance the matcher by a sampled token that does not end the text."""
        with self._contained:
            if not self._matcher.accept_token(token_id):
                self._fail(f"it does not allow the token {token_id} that was sampled")
            elif self._matcher.is_accepting:
                self._fill()
                self.exhausted = self._buffer == self._zeros

    def start_mask(self, stop_ids: Collection[int], *, may_stop: bool) -> None:
        """Start to compute the next mask in the mask worker.

        If the text is complete, the mask allows stop tokens if ``may_stop``, or if nothing else may follow.
        """
        self._computed.clear()
        self._worker.submit(partial(self._compute, stop_ids, may_stop))

    def wait_for_mask(self) -> memoryview:
        """Return the mask once it is computed.

        If the sequence has failed, return a mask of all tokens, whose sample is dropped.
        """
        if not self._computed.wait(MASK_TIMEOUT):
            self._fail(f"it took more than {MASK_TIMEOUT} s to find the next token")
            self._worker.replace_thread()
        return self._mask

    def _compute(self, stop_ids: Collection[int], may_stop: bool) -> None:
        with self._contained:
            self._fill()
            self.may_stop = self._matcher.is_accepting and (may_stop or self._buffer == self._zeros)
            if self.may_stop:
                for token in stop_ids:
                    self._buffer[token // 8] |= 1 << token % 8
            if self._buffer == self._zeros:
                self._fail("it allows no token of the vocabulary here")
        self._computed.set()

    def _fail(self, reason: str) -> None:
        self.error = BackendError(f"the grammar failed: {reason}")
        self._mask = memoryview(b"\xff" * len(self._buffer)).cast("i")

    def _fill(self) -> None:
        self._matcher.fill_bitmask(self._mask)
        for token in self._eos_token_ids:
            self._buffer[token // 8] &= ~(1 << token % 8)
