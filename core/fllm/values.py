"""Values exchanged by pipeline, backends and API: frozen Structs that can cross processes as msgpack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from fllm.constraints import Constraint

FinishReason = Literal["stop", "length", "abort"]
"""Why a backend ended a sequence. ``stop``: an end-of-sequence or stop token; ``length``: a limit."""
PoolingTask = Literal["embed", "classify"]
"""What a model makes of its hidden states: embeddings, or one number for each class."""


class ReasoningLimit(Struct, frozen=True, kw_only=True):
    """A maximum of reasoning tokens, and how the output marks its reasoning."""

    max_tokens: int
    opening: tuple[str, ...]
    """Texts that begin the reasoning: at the beginning of the output, or anywhere if it ``reopens``."""
    closing: tuple[str, ...]
    """Texts that end it."""
    end: str
    """Text that is forced when no tokens are left. It begins with one of ``closing``."""
    inside: bool
    """Whether the output begins inside the reasoning."""
    reopens: bool = False
    """Whether reasoning may begin again after its end."""


class SamplingParams(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sampling parameters of a request, which a backend must respect. The API validates their ranges."""

    max_tokens: int
    """Maximum number of tokens to generate; 0 only computes the prompt."""
    min_tokens: int = 0
    """No stop token is sampled before this number of tokens."""
    temperature: float = 1.0
    """0 selects the most likely token."""
    top_p: float = 1.0
    top_k: int = -1
    """-1 keeps all tokens."""
    min_p: float = 0.0
    """Tokens less likely than ``min_p`` times the most likely one are dropped."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    """Number added to the logit, by token id."""
    seed: int | None = None
    """The same seed, prompt and parameters give the same tokens, whatever other requests run."""
    allowed_token_ids: tuple[int, ...] = ()
    """Only these tokens are sampled; empty: all."""
    bad_words_token_ids: tuple[tuple[int, ...], ...] = ()
    """Sequences of tokens that the output never contains."""
    reasoning_limit: ReasoningLimit | None = None
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    """Continue after the model's own end-of-sequence tokens; ``stop_token_ids`` still stop."""
    logprobs: int | None = None
    """Number of most likely tokens to report with each sampled token's log-probability; ``None``: report
    nothing."""
    prompt_logprobs: int | None = None
    """The same for the tokens of the prompt, on the first output."""
    logprob_token_ids: tuple[int, ...] = ()
    """Report the log-probabilities of these tokens, in this order, instead of those of the most likely ones.
    Has an effect only with ``logprobs``."""
    allowed_counts: bool = False
    """Report `EngineOutput.allowed`, if the backend can."""

    @property
    def filter_param(self) -> str | None:
        """The request field that restricts which tokens are sampled, or ``None`` if all may be."""
        return next((field for name, field in TOKEN_FILTERS.items() if getattr(self, name)), None)


TOKEN_FILTERS: Mapping[str, str] = {
    "allowed_token_ids": "allowed_token_ids",
    "bad_words_token_ids": "bad_words",
    "reasoning_limit": "thinking_token_budget",
}
"""Fields of `SamplingParams` that restrict which tokens are sampled, and the request's fields for them."""


BACKGROUND_PRIORITY = 2**40
"""Requests with this priority or a larger number run in the background: nobody waits for them."""


class GenerateRequest(Struct, frozen=True):
    """One sequence for a backend to continue."""

    request_id: str
    """Unique among the sequences in flight."""
    token_ids: list[int]
    sampling: SamplingParams
    group: str = ""
    """Sequences of one request have the same group and may share the blocks of their prompt."""
    constraint: Constraint | None = None
    """Constraint on the generated text; only for backends whose card has a `ModelCard.grammar`."""
    client: str = ""
    """Name of the client. A backend may serve clients in turn, so that none starves."""
    cache_salt: str = ""
    """Requests share blocks of the prefix cache only if they have the same salt."""
    shared_tokens: int = 0
    """Number of first tokens that the operator has made public: their full blocks are shared by all requests,
    whatever their salts."""
    priority: int = 0
    """A backend may begin with the request of a client that has the lowest number. From `BACKGROUND_PRIORITY`
    on, the requests of other clients should come first, too."""
    images: tuple[str, ...] = ()
    """`PreparedImages.keys`, if the prompt has images."""
    adapter: int = 0
    """Id of the LoRA adapter that generates; 0: the model itself."""
    generated: tuple[int, ...] = ()
    """First tokens of the output, which another engine has generated. The outputs contain what follows, but
    nothing that only a first output has. Only for backends whose card has `ModelCard.resumes`."""

    @property
    def http_request_id(self) -> str:
        """``x-request-id`` of the HTTP request, which is the first part of ``group``."""
        return self.group.rsplit("/", 2)[0]


class PoolingInput(Struct, frozen=True, array_like=True):
    """A text, or a pair of texts, as tokens."""

    token_ids: list[int]
    second_at: int | None = None
    """Index of the first token of the second text, for models that tell the texts apart by token types."""


class PoolingRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Inputs for a backend to pool: each becomes one vector."""

    request_id: str
    """Unique among the requests in flight."""
    inputs: list[PoolingInput]
    dimensions: int | None = None
    """Keep this number of values of an embedding. It is normalised afterwards."""
    activation: bool | None = None
    """Whether to apply the model's last step: the normalisation of embeddings, softmax or sigmoid of logits.
    ``None``: as the model declares."""
    client: str = ""
    """Name of the client. A backend may serve clients in turn, so that none starves."""
    priority: int = 0
    """A backend may begin with the request of a client that has the lowest number."""


class PoolingOutput(Struct, frozen=True, kw_only=True):
    """The vectors of a `PoolingRequest`."""

    size: int
    """Number of values of each vector."""
    values: bytes
    """All vectors, one after the other, as float32 in little-endian order."""
    queue_time: float = 0.0
    """Seconds between arrival and the first batch."""


class TokenLogprob(Struct, frozen=True, array_like=True):
    """Log-probability of a token under the model's own distribution (before temperature and penalties)."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The most likely tokens at this position and their log-probabilities, best first; or the tokens of
    `SamplingParams.logprob_token_ids`."""
    rank: int | None = None
    """1 for the most likely token of the vocabulary, or ``None`` if it is not known."""


class EngineOutput(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Output of a backend for one sequence since the previous output."""

    token_ids: list[int] = []
    logprobs: list[TokenLogprob] | None = None
    """One for each of ``token_ids``, if requested."""
    finish_reason: FinishReason | None = None
    """Set on the last output only."""
    stop_token: int | None = None
    """Stop token that ended the sequence, if any; it is the last of ``token_ids``."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache. Set on one output, the first if it is known by then."""
    queue_time: float = 0.0
    """Seconds between arrival and the first prefill, on the first output."""
    prompt_logprobs: list[TokenLogprob | None] | None = None
    """On the first output, if requested: one for each prompt token, ``None`` for the first token."""
    replica: str = ""
    """Name of the replica that generates, on its first output for the sequence."""
    allowed: list[int] | None = None
    """For each of ``token_ids``, the number of tokens that could have been there, if that is requested and
    the constraint or another field restricts them. 1: the token was forced. 0, like a missing last count: the
    token was not restricted, or the number is not known."""

    @property
    def allowed_of_tokens(self) -> list[int]:
        """`allowed` with exactly one count for each of ``token_ids``."""
        known, size = self.allowed or [], len(self.token_ids)
        return [*known[:size], *[0] * (size - len(known))]


def merge_outputs(outputs: Sequence[EngineOutput]) -> EngineOutput:
    """Return one output with the content of one or more consecutive ``outputs``."""
    first, last = outputs[0], outputs[-1]
    if first is last:
        return first
    logprobs = [logprob for output in outputs for logprob in output.logprobs or ()]
    has_counts = any(output.allowed for output in outputs)
    return EngineOutput(
        token_ids=[token_id for output in outputs for token_id in output.token_ids],
        logprobs=logprobs or None,
        finish_reason=last.finish_reason,
        stop_token=last.stop_token,
        cached_tokens=max([output.cached_tokens for output in outputs]),
        queue_time=first.queue_time,
        prompt_logprobs=first.prompt_logprobs,
        replica=first.replica,
        allowed=[count for output in outputs for count in output.allowed_of_tokens] if has_counts else None,
    )


BlockHash = Annotated[bytes, Meta(max_length=64)]
"""Hash of a block of the prefix cache. Longer ones of an engine are not accepted."""


class CacheChanges(Struct, frozen=True, kw_only=True):
    """Blocks that the prefix cache of an engine has gained and lost, by their hashes."""

    gained: list[BlockHash] = []
    lost: list[BlockHash] = []


class SamplingDefaults(Struct, frozen=True, omit_defaults=True):
    """Defaults from the model's ``generation_config.json``; a request's own values take precedence."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None


class ImageSupport(Struct, frozen=True):
    """How the prompts of a model contain images."""

    placeholder: str
    """Text that stands for one image in what the chat template renders."""


class PreparedImages(Struct, frozen=True):
    """The images of one prompt, as the model takes them."""

    keys: tuple[str, ...]
    """Digest of each image. The backend keeps what it has prepared under them for a while."""
    texts: tuple[str, ...]
    """Text that replaces the placeholder of each image in the prompt."""


class PoolingCard(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Description of a model that pools its inputs instead of generating text."""

    task: PoolingTask
    size: int
    """Number of values of an embedding, or of classes."""
    matryoshka: bool | tuple[int, ...] = False
    """Whether embeddings may be cut to fewer values, or the sizes to which they may be cut."""
    labels: tuple[str, ...] = ()
    """Names of the classes."""
    prompts: Mapping[str, str] = {}
    """Texts that precede an input, by the name of their purpose, such as ``query``."""
    default_prompt_name: str | None = None
    lowercase: bool = False
    """Whether texts are converted to lower case first."""


class ModelCard(Struct, frozen=True, kw_only=True):
    """Description of the model of a started backend."""

    tokenizer: str
    """Directory with ``tokenizer.json`` and ``tokenizer_config.json``."""
    max_model_len: int
    """Maximum number of tokens of prompt and output together."""
    long_context_start: int | None = None
    """Number of tokens of prompt and output beyond which the model computes a sequence with other positions,
    as with longrope. The engine then computes all its tokens again. ``None``: there is none."""
    eos_token_ids: tuple[int, ...] = ()
    defaults: SamplingDefaults = SamplingDefaults()
    artifact_id: str = ""
    """Identifies the weights: a Hub revision, or a digest of the file."""
    grammar: str | None = None
    """The grammar backend that enforces a `GenerateRequest.constraint`, or ``None``."""
    pooling: PoolingCard | None = None
    """What a `PoolingBackend` returns for an input; ``None``: the model generates text."""
    supports_cache_salt: bool = False
    """Whether requests share a prefix cache only as `GenerateRequest.cache_salt` allows, or not at all."""
    recurrent: bool = False
    """Whether layers keep a state for each sequence, as in Mamba. KV blocks can't be shared then, computed
    tokens can't be taken back, and drafts can't be verified."""
    images: ImageSupport | None = None
    """``None``: the model, or the backend, takes only text."""
    resumes: bool = False
    """Whether the backend continues an output that another engine began: `GenerateRequest.generated`."""
    runtime: dict[str, Any] = {}
    """``runtime_config`` of `/v1/models`: device, dtype, quantization, KV-cache blocks, buckets..."""


class CacheTierStats(Struct, frozen=True, kw_only=True):
    """Gauges and totals of a tier that holds blocks of the prefix cache outside of the KV cache."""

    hits: int = 0
    """Prompt tokens restored from the tier since the start."""
    misses: int = 0
    """Prompt tokens that neither the KV cache nor the tiers up to this one had."""
    used_bytes: int = 0
    limit_bytes: int = 0
    """Maximum of ``used_bytes``."""
    read_bytes: int = 0
    """Bytes read from a disk since the start."""
    written_bytes: int = 0
    dropped_blocks: int = 0
    """Blocks that were not written, because the disk was too slow or returned an error."""


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
    """Draft tokens proposed by speculative decoding since the start."""
    accepted: int = 0
    """Draft tokens accepted since the start."""
    drafters_off: int = 0
    """1 while nothing is drafted, because drafts lose time or the drafter has failed; else 0."""
    steps: int = 0
    """Steps of the engine since the start; an engine that does not count them always reports 0."""
    grammar_compilations: int = 0
    """Constraints that the grammar backend was asked to compile since the start; cached ones do not count."""
    grammar_errors: int = 0
    """Those that it rejected, or that failed."""
    grammar_seconds: float = 0.0
    """Time that it took to compile them."""
    cache_tiers: Mapping[str, CacheTierStats] = {}
    """Tiers of ``--kv-offload-memory`` (``ram``) and ``--kv-cache-dir`` (``disk``), by name."""
    replicas: tuple[ReplicaStats, ...] = ()
    """What each engine reports, if there are several; the other fields are their sums."""
    memory: int = 0
    """Bytes that the engine occupies; 0 if that is not known."""
    models: Mapping[str, ModelStats] = {}
    """The models of a server that loads them on demand, by name. The other values are sums."""


class ReplicaStats(Struct, frozen=True, kw_only=True):
    """One of several engines that share the requests of a backend."""

    name: str
    state: str
    """``ready``, ``starting``, ``draining``, ``drained``, or ``down``: its engine is started again."""
    stats: EngineStats
    requests: int = 0
    """Requests in flight that it has."""
    queued_tokens: int = 0
    """Prompt tokens that it must compute before all of these have their first output."""
    total_requests: int = 0
    """Requests that it got since the start, by the first choice or after another engine ended."""
    retries: int = 0
    """Requests that were sent to another replica before their first output, because its engine ended."""
    resumptions: int = 0
    """The same after their first output."""
    restarts: int = 0
    """Number of times that its engine ended."""


class ModelStats(Struct, frozen=True, kw_only=True):
    """The state of one model of a server that loads models on demand."""

    state: str
    """``unloaded``, ``loading``, ``loaded``, ``unloading``, ``sleeping`` or ``failed``."""
    pinned: bool = False
    memory: int = 0
    """Bytes that it occupies; those that it is expected to occupy until that is measured."""
    loads: int = 0
    """Times that it was loaded since the start."""
    in_flight: int = 0
    """Requests that use it."""
    waiting: int = 0
    """Requests that wait until it is loaded."""
    engine: EngineStats | None = None
    """``None`` if it is not loaded, or its engine does not respond."""


class Progress(Struct, frozen=True):
    """Progress of a long start-up task; ``total`` is 0 if unknown."""

    task: str
    done: int
    total: int


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts of one sequence."""

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
    lenient: bool = False
    """Ignore keywords of the schema that can't be enforced, where calls are constrained."""


ChatTemplates = Mapping[str, str]
"""Jinja sources by name: ``default``, and ``tool_use`` for requests with tools."""


def stop_tokens(sampling: SamplingParams, eos_token_ids: Iterable[int]) -> frozenset[int]:
    """Return the ids of the tokens that end a sequence once it has ``min_tokens``."""
    own = frozenset(sampling.stop_token_ids)
    return own if sampling.ignore_eos else own.union(eos_token_ids)
