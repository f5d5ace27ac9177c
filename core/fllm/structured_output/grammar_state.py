"""What keeps one sequence to its grammar."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from threading import Event

from fllm.errors import BackendError, RequestError, format_error
from fllm.structured_output.interfaces import GrammarMatcher, Vocabulary
from fllm.structured_output.mask_worker import PATIENCE, MaskThread


def require_text(matcher: GrammarMatcher, bitmask_size: Callable[[], int]) -> None:
    """Raise `RequestError` if the grammar of a new matcher allows no text at all, such as ``a = a "b"``."""
    mask = memoryview(bytearray(4 * bitmask_size())).cast("i")
    matcher.fill_bitmask(mask)
    if not any(mask) and not matcher.is_accepting:
        raise RequestError("the grammar allows no text at all")


class Guide:
    """A matcher and the mask of the next token.

    All but the computing of a mask happens in the engine's thread, and never while one is being computed.
    """

    def __init__(self, matcher: GrammarMatcher, vocabulary: Vocabulary, thread: MaskThread) -> None:
        self._matcher = matcher
        self._thread = thread
        self._eos = vocabulary.eos_token_ids
        self._buffer = bytearray(4 * vocabulary.bitmask_size)
        self._nothing = bytes(len(self._buffer))
        self._mask = memoryview(self._buffer).cast("i")
        self._computed = Event()
        self.error: BackendError | None = None
        """Why the sequence can't go on."""
        self.may_end = False
        """By the last mask, a stop token ends the text; where it does not, it is a token like others."""
        self.exhausted = False
        """The text can't but end here."""

    def accept_token(self, token_id: int) -> None:
        """The token was sampled, and does not end the text."""
        try:
            if not self._matcher.accept_token(token_id):
                self._fail(f"it does not allow the token {token_id} that was sampled")
            elif self._matcher.is_accepting:
                self._fill()
                self.exhausted = self._buffer == self._nothing
        except Exception as error:  # noqa: BLE001  a stranger's code: it concerns this sequence alone
            self._fail(format_error(error))

    def begin(self, stop_ids: Collection[int], *, may_end: bool) -> None:
        """Compute the mask in the thread beside the device. Tokens that end the sequence are allowed where
        its text is complete, if it may end or can't go on."""
        self._computed.clear()
        self._thread.begin(partial(self._compute, stop_ids, may_end))

    def mask(self) -> memoryview:
        """The mask, once it is computed; all tokens, if the sequence has failed: nobody will see which."""
        if not self._computed.wait(PATIENCE):
            self._fail(f"it took more than {PATIENCE} s to find the next token")
            self._thread.give_up()
        return self._mask

    def _compute(self, stop_ids: Collection[int], may_end: bool) -> None:
        try:
            self._fill()
            self.may_end = self._matcher.is_accepting and (may_end or self._buffer == self._nothing)
            if self.may_end:
                for token in stop_ids:
                    self._buffer[token // 8] |= 1 << token % 8
            if self._buffer == self._nothing:
                self._fail("it allows no token of the vocabulary here")
        except Exception as error:  # noqa: BLE001  a stranger's code: it concerns this sequence alone
            self._fail(format_error(error))
        self._computed.set()

    def _fail(self, why: str) -> None:
        self.error = BackendError(f"the grammar failed: {why}")
        self._mask = memoryview(b"\xff" * len(self._buffer)).cast("i")

    def _fill(self) -> None:
        self._matcher.fill_bitmask(self._mask)
        for token in self._eos:
            self._buffer[token // 8] &= ~(1 << token % 8)
