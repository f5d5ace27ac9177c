"""The drafter of one engine: it is asked for drafts while they save time, and never again if it fails."""

from __future__ import annotations

import logging
import time
from collections import abc
from collections.abc import Callable, Mapping
from itertools import islice
from operator import index

from msgspec import Struct

from fllm.batching.drafting.draft_account import DraftMeter
from fllm.batching.drafting.draft_room import DraftRoom
from fllm.batching.drafting.draft_width import DraftWidth
from fllm.batching.limits import BatchLimits
from fllm.batching.prompt_validation import MAX_VOCAB_SIZE
from fllm.batching.sequence import Sequence
from fllm.config import BackendConfig
from fllm.containment import contained, mapped
from fllm.drafter import (
    DraftedSequence,
    Drafter,
    DrafterContext,
    DrafterFactory,
    DraftRequest,
    DraftResult,
)
from fllm.errors import PluginError, UserError, format_error
from fllm.values import ModelCard, Progress

log = logging.getLogger("fllm.batching")

Verified = tuple[str, int, int]
"""Id of a sequence, the number of its drafts, and how many of them were right."""


class _Drafted(Struct, eq=False):
    """A sequence that may have drafts."""

    sequence: DraftedSequence
    width: DraftWidth


class _Step(Struct):
    """The step that is being computed."""

    rows: int
    """Number of sequences that decode."""
    context: int
    """Number of tokens of all of them."""
    is_measured: bool
    """Whether it does nothing else, so that its time tells something."""
    started_at: float
    drafting: float = 0.0
    """Seconds that the drafter has taken."""


class Drafting:
    """Asks a drafter for drafts of the sequences that decode, and measures what they gain."""

    def __init__(
        self,
        drafter: Drafter,
        name: str,
        *,
        max_tokens: int,
        vocab_size: int,
        max_seqs: int | None = None,
        meter: DraftMeter | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._drafter = drafter
        self._name = name
        self._max_tokens = max_tokens
        self._vocab_size = vocab_size
        self._max_seqs = max_seqs
        """Nothing is drafted while more sequences run. ``None``: the measurements decide alone."""
        self._meter = DraftMeter() if meter is None else meter
        self._clock = clock
        self._sequences: dict[str, _Drafted] = {}
        self._step: _Step | None = None
        self._ended_at = 0.0
        self._has_failed = False
        self.drafted = self.accepted = 0
        """Total numbers of drafts."""

    @property
    def is_off(self) -> bool:
        """Whether nothing is drafted now: drafts lose time, or the drafter has failed."""
        return self._has_failed or self._meter.is_off

    def start(self, sequence: Sequence) -> None:
        """Let a sequence have drafts, unless its tokens are restricted."""
        if self._has_failed or sequence.restricted:
            return
        drafted = DraftedSequence(
            id=sequence.id,
            scope=sequence.namespace,
            token_ids=sequence.token_ids,
            prompt_length=sequence.prompt_length,
            sampling=sequence.sampling,
            seed=sequence.seed,
        )
        self._sequences[sequence.id] = _Drafted(drafted, DraftWidth())
        with contained(self._fail, base_exceptions=True):
            self._drafter.start(drafted)

    def draft(
        self, sequences: abc.Sequence[Sequence], room: DraftRoom, *, is_measured: bool
    ) -> Mapping[str, list[int]]:
        """Begin a step in which these sequences decode, and return the drafts of some by their ids.

        ``is_measured``: whether nothing else is computed in the step.
        """
        self._step = None
        if self._has_failed or not sequences:
            return {}
        context = sum(each.length for each in sequences)
        self._step = step = _Step(len(sequences), context, is_measured, self._clock())
        if self._max_seqs is not None and room.running > self._max_seqs:
            step.is_measured = False
            return {}
        if not self._meter.allows(step.rows, context):
            return {}
        requests = {each.id: self._request(each, room.of(each)) for each in sequences if each.started}
        batch = [request for request in requests.values() if request is not None]
        if not batch:
            return {}
        proposed: list[list[int]] = []
        with contained(self._fail, base_exceptions=True):
            proposed = self._checked(self._drafter.propose(batch), batch)
        step.drafting = self._clock() - step.started_at
        drafts: dict[str, list[int]] = {}
        for each, tokens in zip(batch, proposed, strict=False):  # nothing is proposed by a drafter that fails
            self._sequences[each.sequence.id].width.found(len(tokens))
            if tokens:
                drafts[each.sequence.id] = tokens
        return {each.id: room.take(each, drafts[each.id]) for each in sequences if each.id in drafts}

    def complete(self, verified: abc.Sequence[Verified]) -> None:
        """Record the results of a step: those of the sequences that had drafts."""
        step, self._step = self._step, None
        now = self._clock()
        drafted = sum(count for _, count, _ in verified)
        accepted = sum(count for _, _, count in verified)
        self.drafted += drafted
        self.accepted += accepted
        if step is not None and step.is_measured:
            seconds = now - max(step.started_at, self._ended_at)
            self._meter.record(
                step.rows,
                step.context,
                seconds,
                drafting=step.drafting,
                drafted=drafted,
                accepted=accepted,
            )
        elif step is not None:
            self._meter.record_mixed(step.rows, drafting=step.drafting, accepted=accepted)
        self._ended_at = now
        results: list[DraftResult] = []
        for sequence_id, drafts, right in verified:
            if each := self._sequences.get(sequence_id):
                each.width.update(drafts, right)
                results.append(DraftResult(each.sequence, drafts, right))
        if results:
            with contained(self._fail, base_exceptions=True):
                self._drafter.verified(results)

    def end(self, sequence_id: str) -> None:
        """Drop a sequence that has ended."""
        drafted = self._sequences.pop(sequence_id, None)
        if drafted is not None:
            with contained(self._fail, base_exceptions=True):
                self._drafter.end(drafted.sequence)

    def close(self) -> None:
        """Free the resources of the drafter."""
        with contained(self._fail, base_exceptions=True):
            self._drafter.close()

    def _request(self, sequence: Sequence, limit: int) -> DraftRequest | None:
        drafted = self._sequences.get(sequence.id)
        if drafted is None or limit < 1 or not (width := drafted.width.next()):
            return None
        return DraftRequest(drafted.sequence, min(width, limit, self._max_tokens))

    def _checked(
        self, proposed: abc.Iterable[abc.Iterable[int]], batch: abc.Sequence[DraftRequest]
    ) -> list[list[int]]:
        """Return the drafts; raise `ValueError` or `TypeError` for what can't be drafts of the batch."""
        count = len(batch)
        found = list(islice(proposed, count + 1))
        if len(found) != count:
            raise ValueError(f"it proposed other than {count} lists of tokens for {count} sequences")
        return [
            self._checked_tokens(tokens, each.max_tokens) for tokens, each in zip(found, batch, strict=True)
        ]

    def _checked_tokens(self, proposed: abc.Iterable[int], limit: int) -> list[int]:
        tokens = [index(token) for token in islice(proposed, limit + 1)]
        if len(tokens) > limit:
            raise ValueError(f"it proposed more than {limit} tokens for a sequence that may have {limit}")
        for token in tokens:
            if not 0 <= token < self._vocab_size:
                raise ValueError(f"it proposed the token {token}; tokens are 0 to {self._vocab_size - 1}")
        return tokens

    def _fail(self, error: BaseException) -> None:
        if not self._has_failed:
            log.error("the drafter %s failed and is switched off: %s", self._name, format_error(error))
        self._has_failed = True
        self._sequences.clear()


def open_drafting(
    factory: DrafterFactory,
    config: BackendConfig,
    card: ModelCard,
    limits: BatchLimits,
    progress: Callable[[Progress], None],
) -> Drafting:
    """Create the drafter that the configuration names. Raise its `UserError`, or `PluginError`."""
    speculation = config.speculative_config
    assert speculation is not None, "there is nothing to create"
    name = speculation.method
    vocab_size = card.runtime.get("vocab_size", MAX_VOCAB_SIZE)
    context = DrafterContext(
        config=config,
        card=card,
        vocab_size=vocab_size,
        num_speculative_tokens=speculation.num_speculative_tokens,
        max_num_seqs=limits.max_num_seqs,
        settings=speculation.settings,
        progress=progress,
    )
    with mapped(
        lambda error: PluginError(f"the drafter {name!r} can't be created: {format_error(error)}"),
        passing=(UserError,),
    ):
        drafter: object = factory(context)
    if not isinstance(drafter, Drafter):
        members = "start, propose, verified, end and close"
        raise PluginError(
            f"the drafter {name!r} is a {type(drafter).__name__}; it needs the members {members}"
        )
    return Drafting(
        drafter,
        name,
        max_tokens=speculation.num_speculative_tokens,
        vocab_size=vocab_size,
        max_seqs=limits.max_drafting_seqs,
    )
