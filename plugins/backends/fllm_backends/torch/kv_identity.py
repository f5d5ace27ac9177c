"""Everything that decides which bytes a block of the KV cache has for given tokens."""

from __future__ import annotations

from importlib.metadata import version

import torch

from fllm_backends.checkpoints.download import LocalModel
from fllm_backends.checkpoints.safetensors_files import weight_files
from fllm_backends.checkpoints.weights_fingerprint import fingerprint_weights
from fllm_backends.torch.attention import KVCache
from fllm_backends.torch.model import Decoder
from fllm_backends.torch.options import TorchConfig

_IMAGE_SETTINGS = ("preprocessor_config.json", "processor_config.json")
"""What decides how an image is scaled and cut."""


def kv_identity(model: LocalModel, decoder: Decoder, cache: KVCache, config: TorchConfig) -> dict[str, str]:
    """Return the identity of a decoder's blocks. Raise `ModelError` if the model's files are gone.

    The numeric path is a part of it, also where another one would compute nearly the same values: the code
    of the decoder, its version, that of torch, the device and its instructions.
    """
    return {
        "model": _fingerprint(model, config),
        "decoder": type(decoder).__qualname__,
        "quantization": str(config.quantization),
        "dtype": config.dtype,
        "kv_dtype": str(cache.dtype).removeprefix("torch."),
        "kv_layout": repr(cache.layout),
        "block_size": str(cache.block_size),
        "device": _describe_device(decoder),
        "server": version("furiosa-llm-server"),
        "libraries": f"torch {torch.__version__}, transformers {version('transformers')}",
    }


def _fingerprint(model: LocalModel, config: TorchConfig) -> str:
    settings = [model.directory / "config.json"]
    settings += [file for name in _IMAGE_SETTINGS if (file := model.directory / name).is_file()]
    if config.dummy:
        return f"{fingerprint_weights(settings)} dummy seed {config.seed}"
    if model.gguf:
        from fllm_backends.checkpoints.gguf.metadata import part_files

        return fingerprint_weights([*settings, *part_files(model.gguf)])
    return fingerprint_weights([*settings, *weight_files(model.directory)])


def _describe_device(decoder: Decoder) -> str:
    if decoder.device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(decoder.device)}"
    if ".fused." in type(decoder).__module__:
        from fllm_backends.torch.fused.target import TARGET

        return f"cpu {TARGET}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
