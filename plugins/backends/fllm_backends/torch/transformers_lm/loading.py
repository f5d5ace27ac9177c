"""Load a model of transformers: its weights from our tensors, by the library's own renames and merges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from fllm.containment import mapped
from fllm.errors import ModelError, format_error
from fllm.values import Progress
from fllm_backends.torch.transformers_lm.model_class import TransformersModel
from fllm_backends.torch.transformers_lm.paged_attention import ATTENTION, NO_INTERFACE, register_attention

TASK = "Loading weights"
_NAMED = 3
"""Number of missing tensors that an error names."""


class NamedWeights(Protocol):
    """Weights by Hugging Face's names, each read on request."""

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the names."""
        ...

    def read(self, name: str) -> Tensor:
        """Return a weight; raise `ModelError` if it is missing."""
        ...


def describe(model: TransformersModel) -> PreTrainedModel:
    """Return the model without weights, on the device ``meta``. Raise `ModelError` if transformers can't."""
    with torch.device("meta"):
        return _create(model, torch.bfloat16)  # in which a grouped product runs on this device


def random_model(
    model: TransformersModel, device: torch.device, dtype: torch.dtype, seed: int
) -> PreTrainedModel:
    """Return the model with the weights that its class begins training with (``--load-format dummy``)."""
    with torch.random.fork_rng(), device:
        torch.manual_seed(seed)
        return _create(model, dtype)


def load_model(
    model: TransformersModel,
    weights: NamedWeights,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[Progress], None],
) -> PreTrainedModel:
    """Load the model from a checkpoint. Raise `ModelError` if a tensor is missing or has another shape."""
    _prepare()
    names = list(weights)
    reads = count(1)

    def read(name: str) -> Tensor:
        progress(Progress(TASK, min(next(reads), len(names)), len(names)))
        return weights.read(name).to(device, dtype)

    progress(Progress(TASK, 0, len(names)))
    with _refused(model.name):
        loaded, report = model.model_class.from_pretrained(
            None,
            config=model.config,
            state_dict={name: _Weight(partial(read, name)) for name in names},
            dtype=dtype,
            attn_implementation=_attention(model),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check(report)
    result: PreTrainedModel = loaded.eval().to(device)
    return result


class _Weight:
    """A tensor of a checkpoint that transformers reads when it needs it, by indexing."""

    def __init__(self, read: Callable[[], Tensor]) -> None:
        self._read = read

    def __getitem__(self, _: object) -> Tensor:
        return self._read()


def _check(report: dict[str, Any]) -> None:
    if wrong := sorted(report["mismatched_keys"]):
        name, found, required = wrong[0]
        raise ModelError(
            f"the weight {name!r} has the shape {list(found)}; config.json requires {list(required)}"
        )
    if missing := sorted(report["missing_keys"]):
        names = ", ".join(map(repr, missing[:_NAMED]))
        raise ModelError(f"the weights lack {names}" + (", ..." if len(missing) > _NAMED else ""))


def _create(model: TransformersModel, dtype: torch.dtype) -> PreTrainedModel:
    _prepare()
    with _refused(model.name):
        created: PreTrainedModel = model.model_class._from_config(
            model.config, dtype=dtype, attn_implementation=_attention(model)
        )
        created.eval()
        return created


def _attention(model: TransformersModel) -> dict[str, str]:
    """Select our attention for the decoder, and transformers' own for all other parts, such as images."""
    text = model.config.get_text_config(decoder=True)
    parts = (name for name in model.config.sub_configs if getattr(model.config, name, None) is text)
    return dict.fromkeys(("", *parts), ATTENTION)


def _prepare() -> None:
    register_attention()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _refused(name: str) -> mapped:
    def refuse(error: BaseException) -> BaseException:
        if isinstance(error, KeyError) and error.args == (ATTENTION,):
            return ModelError(f"{name} can't be served: {NO_INTERFACE}")
        if isinstance(error, KeyError) and len(error.args) == 1:
            return ModelError(f"transformers can't load {name}: it has no {error.args[0]!r}")
        return ModelError(f"transformers can't load {name}: {format_error(error)}")

    return mapped(refuse, passing=(ModelError, MemoryError, torch.OutOfMemoryError))
