"""One frozen Struct per room: built by the command line, passed down, never looked up."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

LoadFormat = Literal["auto", "safetensors", "gguf", "dummy"]


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


class BackendConfig(Struct, frozen=True, kw_only=True):
    """What a backend is made from."""

    model: str
    """A directory, a ``.gguf`` file, or a Hub id: see `fllm.models`."""
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


class MetricsConfig(Struct, frozen=True, kw_only=True):
    """What is measured."""

    enabled: bool = False
    """``--enable-metrics``: something is to be scraped at `/metrics`."""
    log_stats: bool = True
    """A line in the log every ten seconds while there is work."""
