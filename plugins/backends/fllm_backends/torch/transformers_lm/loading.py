"""Load a model of transformers: its weights from our tensors, by the library's own renames and merges."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from fllm.containment import mapped
from fllm.errors import ModelError, format_error
from fllm_backends.torch.lazy_weights import NamedWeights, lazy_weights, stored_types
from fllm_backends.torch.transformers_lm.model_class import TransformersModel
from fllm_backends.torch.transformers_lm.paged_attention import ATTENTION, NO_INTERFACE, register_attention

_NAMED = 3
"""Number of missing tensors that an error names."""
_EXPERT = re.compile(r"(.*\.experts\.)(\d+)(\..*)")
"""Name of a tensor of one expert: the layer, the number of the expert, the kind of the tensor."""


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


def load_model(model: TransformersModel, weights: NamedWeights, dtype: torch.dtype) -> PreTrainedModel:
    """Create the model, and find the weights of its parameters, which stay in their files: see `LazyTensor`.

    Raise `ModelError` if a tensor is missing, or has another shape, or integers without scales.
    """
    _prepare()
    with _refused(model.name), _experts_checked(weights):
        loaded, report = model.model_class.from_pretrained(
            None,
            config=model.config,
            state_dict=lazy_weights(weights, dtype),
            dtype=dtype,
            attn_implementation=_attention(model),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check(report)
    _check_types(loaded)
    result: PreTrainedModel = loaded.eval()
    return result


def _check(report: dict[str, Any]) -> None:
    if wrong := sorted(report["mismatched_keys"]):
        name, found, required = wrong[0]
        raise ModelError(
            f"the weight {name!r} has the shape {list(found)}; config.json requires {list(required)}"
        )
    if missing := sorted(report["missing_keys"]):
        names = ", ".join(map(repr, missing[:_NAMED]))
        raise ModelError(f"the weights lack {names}" + (", ..." if len(missing) > _NAMED else ""))


def _check_types(loaded: PreTrainedModel) -> None:
    for name, parameter in loaded.named_parameters():
        for dtype in stored_types(parameter) if parameter.is_floating_point() else ():
            if not dtype.is_floating_point:
                raise ModelError(
                    f"the weight {name!r} is of type {dtype}; it can't be read without its scales"
                )


@contextmanager
def _experts_checked(weights: NamedWeights) -> Iterator[None]:
    """Name the expert that lacks a tensor or has another shape: transformers' error of a merge does not."""
    try:
        yield
    except RuntimeError:
        if problem := _find_odd_expert(weights):
            raise ModelError(problem) from None
        raise


def _find_odd_expert(weights: NamedWeights) -> str | None:
    experts: dict[str, set[str]] = defaultdict(set)
    kinds: dict[str, set[str]] = defaultdict(set)
    shapes: dict[tuple[str, str], tuple[int, ...]] = {}
    names = set(weights)
    for match in filter(None, map(_EXPERT.fullmatch, weights)):
        experts[match[1]].add(match[2])
        kinds[match[1]].add(match[3])
    for layer, numbers in experts.items():
        for number, kind in product(sorted(numbers, key=int), sorted(kinds[layer])):
            name = f"{layer}{number}{kind}"
            if name not in names:
                return f"the weights lack {name!r}"
            shape = tuple(weights.weight(name).shape)
            first = shapes.setdefault((layer, kind), shape)
            if shape != first:
                return f"the weight {name!r} has the shape {list(shape)}; that of expert 0 is {list(first)}"
    return None


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
