"""Create the decoder of a model that transformers computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import nn

from fllm.containment import mapped
from fllm.errors import ModelError, format_error
from fllm.values import Progress
from fllm_backends.torch.cuda.factory import cuda_attention
from fllm_backends.torch.lazy_weights import NamedWeights, read_parameters
from fllm_backends.torch.ranks import Ranks
from fllm_backends.torch.transformers_lm.decoder import TransformersLM
from fllm_backends.torch.transformers_lm.loading import load_model, random_model
from fllm_backends.torch.transformers_lm.model_class import TransformersModel
from fllm_backends.torch.transformers_lm.paged_attention import AttentionKernels
from fllm_backends.torch.transformers_lm.plan import DividedModel

if TYPE_CHECKING:
    from fllm_backends.torch.transformers_lm.packed_modules import Packable

TASK = "Loading weights"


def transformers_decoder(
    model: TransformersModel,
    weights: NamedWeights | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    threads: int | None,
    cores: Sequence[int] = (),
    quantization: str | None = None,
    progress: Callable[[Progress], None],
    ranks: Ranks | None = None,
) -> TransformersLM:
    """Load the model's weights and create its decoder; without weights, with random ones.

    With ``threads``, linear layers and experts are computed on packed weights, by this number, of
    which the others are bound to ``cores``. With a ``quantization``, ``int8`` or ``fp8``, linear layers are
    computed on the kernels for CUDA. With ``ranks``, the decoder is this rank's part.

    Raise `ModelError` if its class can't be served, see also `check_class`.
    """
    if weights is None:
        loaded = random_model(model, torch.device("cpu") if ranks else device, dtype, seed)
    else:
        loaded = load_model(model, weights, dtype)
    total, done = len(list(loaded.parameters())), count(1)

    def advance() -> None:
        progress(Progress(TASK, min(next(done), total), total))

    progress(Progress(TASK, 0, total))
    parts: list[Packable] = []
    if threads is not None:
        from fllm_backends.torch.transformers_lm.packed_modules import packable

        parts += packable(loaded)
    divided = None
    if ranks:
        divided = DividedModel(loaded, ranks, packed=[part.module for part in parts])
        divided.cut()
    with ExitStack() as stack:
        kernels: AttentionKernels | None = None
        if threads is not None:
            from fllm_backends.torch.fused.jit import compile_lock

            stack.enter_context(compile_lock())
            kernels = _pack(parts, threads, cores, advance, products=divided is not None)
        if quantization:
            from fllm_backends.torch.transformers_lm.quantized_modules import quantize_modules

            quantize_modules(loaded, quantization, device, advance)
        read_parameters(loaded, device, advance)
        progress(Progress(TASK, total, total))
        nn.Module.to(loaded, device)  # in place; the method of its class refuses some checkpoints
        if divided:
            divided.connect()
            stack.close()  # a rank that waits for the lock can't run a token with this one
        elif device.type == "cuda":
            kernels = cuda_attention(device, loaded.dtype)
        # It runs one token, which fails if its code does.
        with mapped(
            lambda error: ModelError(f"{model.name} can't be served: its code fails: {format_error(error)}"),
            passing=(ModelError,),
        ):
            return TransformersLM(loaded, kernels)


def _pack(
    parts: list[Packable],
    threads: int,
    cores: Sequence[int],
    advance: Callable[[], None],
    *,
    products: bool,
) -> AttentionKernels:
    """Pack linear layers and experts, and compile the kernels: those of products, too, if asked for."""
    from fllm_backends.torch.fused.kernel_threads import KernelThreads
    from fllm_backends.torch.fused.linear import compile_products
    from fllm_backends.torch.fused.paged_attention import KernelAttention
    from fllm_backends.torch.transformers_lm.packed_modules import pack_modules

    team = KernelThreads(threads, cores)
    pack_modules(parts, team, advance)
    kernels = KernelAttention(team)
    kernels.compile()
    if products:
        compile_products(team)
    return kernels
