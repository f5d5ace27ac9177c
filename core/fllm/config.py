"""Configuration Structs, which the command line builds and passes down."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

LoadFormat = Literal["auto", "safetensors", "gguf", "dummy"]
Runner = Literal["auto", "generate", "pooling"]
ModelImpl = Literal["auto", "native", "transformers"]
"""Code that computes a model: the backend's own, or transformers'. ``auto``: the backend's if it can."""
Positive = Annotated[int, Meta(ge=1)]


OptionSource = Literal["command line", "environment", "file"]
OPTION_VARIABLE = "FURIOSA_LLM_PLUGIN_"
"""Beginning of the names of environment variables that set options of plugins."""


class PluginOption(Struct, frozen=True, kw_only=True):
    """A value that is given for an option of a plugin, before it is checked. It may be a secret."""

    plugin: str = ""
    """Name of the plugin, or ``distribution:name``; empty for an environment variable."""
    name: str
    """Name of the option; of an environment variable, all of it."""
    value: Any
    """Text, or a value of the configuration file."""
    source: OptionSource

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.plugin}.{self.name}, {self.source})"


class PluginConfig(Struct, frozen=True, kw_only=True):
    """Which plugins are loaded, and their options."""

    disabled: tuple[str, ...] = ()
    """Names of plugins or distributions to disable (``--disable-plugin``, ``FLLM_DISABLE_PLUGINS``)."""
    allowed: tuple[str, ...] | None = None
    """Names of the only third-party plugins or distributions to load (``--allow-plugin``); ``None``: all."""
    paths: tuple[str, ...] = ()
    """Files to load as plugins (``--plugin``)."""
    options: tuple[PluginOption, ...] = ()
    """Options of plugins; later ones take precedence."""


class Device(Struct, frozen=True):
    """One accelerator, or part of one: ``cpu``, ``cuda:0``, ``npu:0:0-3``."""

    kind: str
    index: int | None = None
    parts: tuple[int, int] | None = None
    """First and last processing element of an NPU, inclusive."""


class Speculation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of speculative decoding, which never changes the output. The names are vLLM's."""

    method: str
    """Name of the drafter."""
    num_speculative_tokens: Positive
    """Maximum number of draft tokens of a sequence per step."""
    disable_by_batch_size: Positive | None = None
    """No drafts while more sequences than this run; ``None``: as measured."""
    settings: dict[str, Any] = {}
    """The other fields of ``--speculative-config``, which belong to the drafter."""


class LoraAdapter(Struct, frozen=True, kw_only=True):
    """A LoRA adapter of the model (arXiv 2106.09685): low-rank matrices that are added to its own."""

    id: int
    """Positive. Never used for another adapter, not even for one with the same name."""
    name: str
    """Requests choose the adapter by this name, as their ``model``."""
    path: str
    """Directory in PEFT's layout: ``adapter_config.json`` and ``adapter_model.safetensors``."""
    base_model_name: str | None = None
    """Name of the model that it belongs to, for `/v1/models`. ``None``: the served name."""


class Autoscaling(Struct, frozen=True, kw_only=True):
    """How many replicas there are, by the tokens that wait for them. The delays are those of Ray Serve."""

    min_replicas: Annotated[int, Meta(ge=0)] = 1
    """0: replicas that are idle for ``downscale_delay`` are all stopped."""
    max_replicas: Positive
    target_queued_tokens: Positive = 2048
    """Tokens that may wait for each replica before another is added."""
    upscale_delay: float = 3.0
    """Seconds for which more must wait."""
    downscale_delay: float = 60.0
    """Seconds for which fewer replicas must be enough."""
    replica_start_timeout: float = 300.0
    """Seconds that a request waits for the first replica."""


class BackendConfig(Struct, frozen=True, kw_only=True):
    """Settings of a backend."""

    model: str
    """A directory, a ``.gguf`` file, or a Hub id: see `fllm.model.source`."""
    revision: str | None = None
    devices: tuple[Device, ...] = ()
    """Empty: the best available device."""
    tensor_parallel_size: int | None = None
    """Number of devices among which the weights are divided. ``None``: as many as ``devices``."""
    chain: tuple[str, ...] = ()
    """Names of the backends inside this one, the next first: ``("torch",)`` for ``process`` with torch."""
    options: dict[str, str] = {}
    """``--backend-option KEY=VALUE``."""
    runner: Runner = "auto"
    """Whether the model generates text or pools its inputs. ``auto``: as its files declare."""
    dtype: str = "auto"
    quantization: str | None = None
    load_format: LoadFormat = "auto"
    model_impl: ModelImpl = "auto"
    seed: int | None = None
    """Seed of dummy weights (``None``: 0) and of requests without a seed (``None``: random)."""
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enable_prefix_caching: bool = True
    kv_offload_memory: int | None = None
    """Bytes of RAM for blocks that leave the KV cache."""
    kv_cache_dir: str | None = None
    """Directory for such blocks, which several engines may share."""
    kv_cache_dir_size: int = 10 << 30
    """Maximum number of bytes of all blocks in that directory."""
    speculative_config: Speculation | None = None
    enable_lora: bool = False
    """Whether adapters may be loaded: those of ``lora_modules``, and others while the server runs."""
    lora_modules: tuple[LoraAdapter, ...] = ()
    """Adapters to load at the start."""
    max_loras: int | None = None
    """Maximum number of different adapters in one batch. ``None``: no maximum."""
    max_cpu_loras: int = 64
    """Maximum number of adapters that are loaded at once."""
    max_lora_rank: int = 512
    """Largest rank of an adapter."""
    grammar: str | None = None
    """Name of the grammar backend that enforces a `GenerateRequest.constraint`, or ``None``."""
    visible_tokens: tuple[str, ...] = ()
    """Special tokens that the chosen parsers read as text; constrained output contains no others."""
    placement: str = "local"
    """Name of the placement that starts the engine's process."""
    placement_options: dict[str, str] = {}
    """``--placement-option KEY=VALUE``."""
    engine_name: str = "engine"
    """Name of the engine, in logs and for its placement. Replicas have different names."""
    replicas: Positive = 1
    """Number of engines that share the requests, at the start if there is ``autoscaling``."""
    autoscaling: Autoscaling | None = None
    """``None``: the number of replicas stays the same."""
    local_engines: Positive = 1
    """Number of engines that share the cores and the memory of the machine."""
    engines_per_device: Positive = 1
    """Number of engines that share the memory of an accelerator."""
    resume: bool = True
    """Whether another replica continues an output whose engine has ended."""
    engine_timeout: float = 60.0
    """Seconds after which an engine that does not respond, or does not finish a step, is killed."""

    @property
    def max_replicas(self) -> int:
        """The largest number of engines that there may be at once."""
        return self.autoscaling.max_replicas if self.autoscaling else self.replicas


class EngineNetwork(Struct, frozen=True, kw_only=True):
    """How engines that run elsewhere connect to the server."""

    listen: tuple[str, int] | None = None
    """Address and port to listen on; 0: a free port. ``None``: as the placement needs."""
    advertise: tuple[str, int | None] | None = None
    """Address, and port if it differs, to which engines connect. ``None``: where the server listens."""
    tls: bool = False
    """Encrypt the connections, with a certificate that the server makes at its start."""
    certfile: str | None = None
    """Encrypt them with this certificate (PEM)."""
    keyfile: str | None = None
    """Its key. ``None``: it is in ``certfile``."""


class MetricsConfig(Struct, frozen=True, kw_only=True):
    """Settings of metrics, logs of requests, and traces."""

    enabled: bool = False
    """``--enable-metrics``: expose `/metrics`."""
    log_stats: bool = True
    """Log a line every ten seconds while requests run."""
    log_requests: bool = True
    """Log a line for each request: status, tokens, times."""
    otlp_endpoint: str | None = None
    """Endpoint for traces, such as ``http://localhost:4318``."""
    compat: tuple[str, ...] = ()
    """Other servers whose metric names are exposed too: ``vllm``."""
