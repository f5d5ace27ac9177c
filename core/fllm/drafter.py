"""Interfaces of drafters: plugins that guess the next tokens of sequences, for speculative decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from fllm.config import BackendConfig
from fllm.values import ModelCard, Progress, SamplingParams


class DraftedSequence(Struct, frozen=True, kw_only=True, eq=False):
    """A sequence for which a drafter may propose tokens."""

    id: str
    """No other sequence has it at the same time."""
    scope: bytes
    """Who may see its text: what is learned from a sequence may be used only for those of an equal scope.

    It is that of the prefix cache: a client, and the ``cache_salt`` of its request.
    """
    token_ids: Sequence[int]
    """Its prompt and output. The list grows: read it only during the calls, and do not change it."""
    prompt_length: int
    """Number of ``token_ids`` that belong to the prompt."""
    sampling: SamplingParams
    seed: int
    """Seed of its sampling: see `fllm.batching.Row.seed`."""


class DraftRequest(Struct, frozen=True):
    """A sequence that gets one row in the next step, which may verify drafts."""

    sequence: DraftedSequence
    max_tokens: int
    """Maximum number of drafts, at least 1."""


class DraftResult(Struct, frozen=True):
    """What a step made of the drafts of one sequence."""

    sequence: DraftedSequence
    drafted: int
    accepted: int
    """Number of first drafts that were right. They are in ``token_ids`` now, before the latest token."""


class DrafterContext(Struct, frozen=True, kw_only=True):
    """What an engine provides to its drafter."""

    config: BackendConfig
    card: ModelCard
    """The model, which is loaded."""
    vocab_size: int
    """Drafts are less than this."""
    num_speculative_tokens: int
    """Maximum number of drafts of a sequence in one step."""
    max_num_seqs: int = 64
    """Maximum number of sequences that run at once."""
    settings: Mapping[str, Any] = {}
    """The other fields of ``--speculative-config``: read them with `fllm.drafter_options`."""
    options: Any = None
    """Options of the plugin: a value of its ``FLLM_OPTIONS``, or ``None`` if it declares none."""
    progress: Callable[[Progress], None] = lambda progress: None  # noqa: ARG005
    """Reports progress while the drafter loads something."""


@runtime_checkable
class Drafter(Protocol):
    """Proposes tokens for the sequences of one engine, which verifies them: the output never changes.

    All methods are called in the thread of the engine, between two steps, so each delays all sequences.
    """

    def start(self, sequence: DraftedSequence) -> None:
        """Take a new sequence. Its prompt may not be computed yet."""
        ...

    def propose(self, batch: Sequence[DraftRequest]) -> Sequence[Sequence[int]]:
        """Return the drafts of each sequence: tokens that may follow ``token_ids``; empty if there are none.

        The batch has the sequences of the next step that may have drafts, each once.
        """
        ...

    def verified(self, results: Sequence[DraftResult]) -> None:
        """Receive which drafts of a step were right. Sequences without drafts are left out."""
        ...

    def end(self, sequence: DraftedSequence) -> None:
        """Drop a sequence, which has ended or was aborted."""
        ...

    def close(self) -> None:
        """Free all resources. Called once, after all other calls."""
        ...


DrafterFactory = Callable[[DrafterContext], Drafter]
"""Creates the drafter of an engine, after the model is loaded. Raise `UserError` for what the operator can
fix."""
