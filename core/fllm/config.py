"""One frozen Struct per room: built by the command line, passed down, never looked up."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

LoadFormat = Literal["auto", "safetensors", "gguf", "dummy"]
Positive = Annotated[int, Meta(ge=1)]


class PluginConfig(Struct, frozen=True, kw_only=True):
    """Which plugins are found."""

    disabled: tuple[str, ...] = ()
    """Names of plugins or of distributions to leave out (``--disable-plugin``, ``FLLM_DISABLE_PLUGINS``)."""
    paths: tuple[str, ...] = ()
    """Files to load as plugins (``--plugin``)."""


class Device(Struct, frozen=True):
    """One accelerator, or part of one: ``cpu``, ``cuda:0``, ``npu:0:0-3``."""

    kind: str
    index: int | None = None
    parts: tuple[int, int] | None = None
    """First and last processing element of an NPU, inclusive."""


class Speculation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How next tokens are guessed, to be verified together; no answer changes. The names are vLLM's."""

    method: Literal["ngram"]
    """Where the last tokens stood before, in prompt or answer, what followed may follow again."""
    num_speculative_tokens: Positive
    """Tokens guessed at once at most."""
    prompt_lookup_max: Positive = 4
    """So many last tokens are looked up first, then fewer."""
    prompt_lookup_min: Positive = 2
    disable_by_batch_size: Positive | None = None
    """Guess nothing while more sequences than this run; ``None``: the backend's own limit."""

    def __post_init__(self) -> None:
        shortest, longest = self.prompt_lookup_min, self.prompt_lookup_max
        if shortest > longest:
            raise ValueError(f"prompt_lookup_min is {shortest} and prompt_lookup_max is {longest}")


class BackendConfig(Struct, frozen=True, kw_only=True):
    """What a backend is made from."""

    model: str
    """A directory, a ``.gguf`` file, or a Hub id: see `fllm.model.source`."""
    revision: str | None = None
    devices: tuple[Device, ...] = ()
    """Empty: the best there is."""
    chain: tuple[str, ...] = ()
    """Names of the backends inside this one, the next first: ``("torch",)`` for a process with torch."""
    options: dict[str, str] = {}
    """``--backend-option KEY=VALUE``."""
    dtype: str = "auto"
    quantization: str | None = None
    load_format: LoadFormat = "auto"
    seed: int | None = None
    """Of dummy weights (0 where none is given), and of requests without a seed of their own (random)."""
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enable_prefix_caching: bool = True
    speculative_config: Speculation | None = None
    grammar: str | None = None
    """The grammar plugin that keeps answers to a `GenerateRequest.constraint`; ``None``: nothing does."""
    visible_tokens: tuple[str, ...] = ()
    """Special tokens that the chosen parsers read as text: constrained answers hold no others."""
    engine_timeout: float = 60.0
    """Seconds after which an engine that gives no sign of life, or does not end a step, is killed."""


class MetricsConfig(Struct, frozen=True, kw_only=True):
    """What is measured."""

    enabled: bool = False
    """``--enable-metrics``: something is to be scraped at `/metrics`."""
    log_stats: bool = True
    """A line in the log every ten seconds while there is work."""
    log_requests: bool = True
    """A line in the log for each request: status, tokens, times."""
    otlp_endpoint: str | None = None
    """Where to send traces, such as ``http://localhost:4318``."""
    compat: tuple[str, ...] = ()
    """Other servers whose names of metrics are exposed, too: ``vllm``."""
