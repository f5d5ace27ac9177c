"""Read and check the torch backend's options before anything is loaded."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from fllm.byte_sizes import parse_size
from fllm.config import BackendConfig, Device, LoadFormat, ModelImpl
from fllm.errors import ConfigError
from fllm.model import ModelSource, locate
from fllm.plugins.options import backend_options
from fllm_backends.checkpoints.quantized.config import READABLE, normalized_method
from fllm_backends.torch.cpu_binding import read_pin_threads
from fllm_backends.torch.huge_pages import HugePages, check_huge_pages
from fllm_backends.torch.quantized.serving import SERVED

DTYPES = ("auto", "float32", "bfloat16", "float16")
DEVICES = ("cuda", "cpu")


class TorchOptions(Struct, frozen=True, kw_only=True):
    """The values of ``--backend-option KEY=VALUE``."""

    kv_cache_memory: Annotated[str, Meta(description="memory for the KV cache, such as 2GiB")] | None = None
    threads: Annotated[int, Meta(ge=1, description="threads that compute on a cpu")] | None = None
    matryoshka: Annotated[bool, Meta(description="embeddings may be cut to fewer dimensions")] = False
    huge_pages: Annotated[
        HugePages, Meta(description="auto, on or off: huge pages for weights and KV cache on a cpu")
    ] = "auto"
    pin_threads: Annotated[
        str, Meta(description="off, on, numa:N or CPUs such as 0-3: cores of the threads that compute")
    ] = "off"


class TorchConfig(Struct, frozen=True, kw_only=True):
    """The torch backend's configuration, parsed and checked."""

    source: ModelSource
    revision: str | None
    device: Device | None
    """Device to compute on. ``None``: the first CUDA device, or else the CPU."""
    devices: tuple[Device, ...]
    """Devices of the ranks, if the model is divided. Empty: it is not, or the first devices."""
    tensor_parallel_size: int
    """Number of ranks among which the weights are divided."""
    dtype: str
    """Type of the weights. ``auto``: float32 on a CPU, bfloat16 on CUDA."""
    quantization: str | None
    """Quantization of the weights, or that of the checkpoint. ``None``: what the checkpoint has, where there
    are kernels for it; else int8 on a CPU with AVX2 or NEON unless a dtype is given; else none."""
    model_impl: ModelImpl
    drafts: bool
    """Whether drafts are to be verified."""
    dummy: bool
    seed: int
    max_model_len: int | None
    enable_lora: bool
    max_lora_rank: int
    kv_cache_memory: int | None
    """Size of the KV cache in bytes."""
    threads: int | None
    local_engines: int
    engines_per_device: int
    matryoshka: bool
    """Whether embeddings may be cut, whatever the model's files say."""
    huge_pages: HugePages
    cpus: tuple[int, ...]
    """CPUs to which the threads that compute are bound. Empty: they are not."""


def read_torch_config(config: BackendConfig) -> TorchConfig:
    """Parse and check a configuration. Raise `UserError` that names the option."""
    backend = backend_options(config.options, TorchOptions)
    if config.dtype not in DTYPES:
        raise ConfigError(f"--dtype {config.dtype!r}: the torch backend supports {', '.join(DTYPES)}")
    quantization = config.quantization
    if quantization not in (None, *SERVED):
        quantization = normalized_method(quantization)
        if quantization not in READABLE:
            raise ConfigError(
                f"--quantization {config.quantization!r}: the torch backend serves {', '.join(SERVED)}, and "
                f"checkpoints that are quantized with {', '.join(READABLE)}"
            )
    check_huge_pages(backend.huge_pages)
    ranks = _ranks(config)
    return TorchConfig(
        source=_source(config.model, config.load_format),
        revision=config.revision,
        device=config.devices[0] if config.devices else None,
        devices=config.devices,
        tensor_parallel_size=ranks,
        dtype=config.dtype,
        quantization=quantization or ("none" if config.dtype != "auto" else None),
        model_impl=config.model_impl,
        drafts=config.speculative_config is not None,
        dummy=config.load_format == "dummy",
        seed=config.seed or 0,
        max_model_len=config.max_model_len,
        enable_lora=config.enable_lora,
        max_lora_rank=config.max_lora_rank,
        kv_cache_memory=_size(backend.kv_cache_memory),
        threads=backend.threads,
        local_engines=config.local_engines,
        engines_per_device=config.engines_per_device,
        matryoshka=backend.matryoshka,
        huge_pages=backend.huge_pages,
        cpus=_cpus(backend.pin_threads, config.local_engines * ranks),
    )


def _source(model: str, load_format: LoadFormat) -> ModelSource:
    source = locate(model)
    if (source.kind == "gguf" and load_format == "safetensors") or (
        source.kind == "directory" and load_format == "gguf"
    ):
        raise ConfigError(f"--load-format {load_format!r}: {model!r} is a {source.kind} model")
    return source


def _ranks(config: BackendConfig) -> int:
    """Return the number of ranks: as many as there are devices, unless it is given."""
    devices, size = config.devices, config.tensor_parallel_size
    for device in devices:
        if device.kind not in DEVICES:
            raise ConfigError(f"--devices {device.kind!r}: the torch backend supports {', '.join(DEVICES)}")
    if (size or len(devices)) > 1 and config.enable_lora:
        raise ConfigError("--enable-lora, --lora-modules: adapters need --tensor-parallel-size 1")
    named = len(devices) > 1 or any(device.index is not None for device in devices if device.kind != "cpu")
    if size is not None and named and size != len(devices):
        raise ConfigError(
            f"--tensor-parallel-size {size} needs as many --devices, not {len(devices)}: one for each rank"
        )
    return size or max(1, len(devices))


def _size(text: str | None) -> int | None:
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise ConfigError(f"--backend-option kv_cache_memory={text!r}: {error}") from None


def _cpus(pin_threads: str, engines: int) -> tuple[int, ...]:
    cpus = read_pin_threads(pin_threads)
    if cpus and engines > 1:
        raise ConfigError(
            f"--backend-option pin_threads={pin_threads}: {engines} processes would compute on the same "
            "cores; it is for one engine without ranks on a machine"
        )
    return cpus
