"""What travels between the rooms: frozen, and plain enough to cross a process boundary as msgpack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct, field

from fllm.constraints import Constraint

FinishReason = Literal["stop", "length", "abort"]
"""Why a backend ended a sequence. ``stop``: an end-of-sequence or stop token; ``length``: a limit."""


class SamplingParams(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are chosen: what a backend must obey of a request. Ranges are checked at the edge."""

    max_tokens: int
    """Tokens to generate at most; 0 only runs the prompt."""
    min_tokens: int = 0
    """Until so many tokens exist, no stop token is sampled."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = -1
    """-1 considers all tokens."""
    min_p: float = 0.0
    """Drops tokens less likely than ``min_p`` times the likeliest."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    """Token id to a number added to its logit."""
    seed: int | None = None
    """The same seed, prompt and parameters give the same tokens, whatever else runs."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    """Go on after the model's own end-of-sequence tokens; ``stop_token_ids`` still stop."""
    logprobs: int | None = None
    """Report each sampled token's log-probability and those of so many likeliest; ``None``: nothing."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens, on the first step."""


class GenerateRequest(Struct, frozen=True):
    """One sequence for a backend to continue."""

    request_id: str
    """Unique among the sequences in flight."""
    token_ids: list[int]
    sampling: SamplingParams
    group: str = ""
    """Sequences of one request bear the same group and may share the blocks of their prompt."""
    constraint: Constraint | None = None
    """What the answer's text must be like; given only to a backend whose card names a `ModelCard.grammar`."""
    client: str = ""
    """Who asks: a backend may let clients take turns, so that one with many sequences starves no other."""

    @property
    def http_request_id(self) -> str:
        """``x-request-id`` of the HTTP request, which is the first part of ``group``."""
        return self.group.rsplit("/", 2)[0]


class TokenLogprob(Struct, frozen=True, array_like=True):
    """A token's log-probability under the model's own distribution (before temperature and penalties)."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens at this place and their log-probabilities, best first."""


class EngineOutput(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a backend produced for one sequence since its last step."""

    token_ids: list[int] = []
    logprobs: list[TokenLogprob] | None = None
    """One for each of ``token_ids``, where asked for."""
    finish_reason: FinishReason | None = None
    """Set on the last step, and only there."""
    stop_token: int | None = None
    """The stop token that ended the sequence; it is then the last of ``token_ids``."""
    cached_tokens: int = 0
    """On one step, the first if it is known then: prompt tokens found in the prefix cache."""
    queue_time: float = 0.0
    """On the first step: seconds between arrival and the first prefill."""
    prompt_logprobs: list[TokenLogprob | None] | None = None
    """On the first step, where asked for: one for each prompt token, ``None`` for the first."""


def merge_outputs(steps: Sequence[EngineOutput]) -> EngineOutput:
    """One step that says what these, at least one, say one after the other."""
    first, last = steps[0], steps[-1]
    if first is last:
        return first
    logprobs = [logprob for step in steps for logprob in step.logprobs or ()]
    return EngineOutput(
        token_ids=[token_id for step in steps for token_id in step.token_ids],
        logprobs=logprobs or None,
        finish_reason=last.finish_reason,
        stop_token=last.stop_token,
        cached_tokens=max([step.cached_tokens for step in steps]),
        queue_time=first.queue_time,
        prompt_logprobs=first.prompt_logprobs,
    )


class SamplingDefaults(Struct, frozen=True, omit_defaults=True):
    """What the model's ``generation_config.json`` recommends; a request's own values win."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None


class ModelCard(Struct, frozen=True, kw_only=True):
    """What a started backend says of its model."""

    tokenizer: str
    """The directory that holds ``tokenizer.json`` and ``tokenizer_config.json``."""
    max_model_len: int
    """Tokens of prompt and answer together."""
    eos_token_ids: tuple[int, ...] = ()
    defaults: SamplingDefaults = SamplingDefaults()
    artifact_id: str = ""
    """Names these very weights: a Hub revision, or a digest of the file."""
    grammar: str | None = None
    """The grammar backend that enforces a `GenerateRequest.constraint`, or ``None``."""
    runtime: dict[str, Any] = {}
    """``runtime_config`` of `/v1/models`: device, dtype, quantization, KV-cache blocks, buckets..."""


class EngineStats(Struct, frozen=True, kw_only=True):
    """A backend's gauges and running totals, for `/health` and `/metrics`."""

    running: int = 0
    waiting: int = 0
    kv_blocks: int = 0
    kv_blocks_used: int = 0
    prefix_queries: int = 0
    """Prompt tokens looked up in the prefix cache since the start."""
    prefix_hits: int = 0
    """Prompt tokens found there."""
    preemptions: int = 0
    drafted: int = 0
    """Tokens guessed by speculation since the start."""
    accepted: int = 0
    """Those of them that the model would have sampled itself."""


class Progress(Struct, frozen=True):
    """How far a long start-up task has come; ``total`` 0 means that nobody knows."""

    task: str
    done: int
    total: int


class Usage(Struct, frozen=True, kw_only=True):
    """What one sequence cost, in tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0


class Tool(Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    """A JSON Schema of the arguments."""


ChatTemplates = Mapping[str, str]
"""Jinja sources by name; ``default`` is used, and ``tool_use`` where the request has tools."""


def stop_tokens(sampling: SamplingParams, eos_token_ids: Iterable[int]) -> frozenset[int]:
    """The tokens that end a sequence, once it has ``min_tokens``."""
    own = frozenset(sampling.stop_token_ids)
    return own if sampling.ignore_eos else own.union(eos_token_ids)
