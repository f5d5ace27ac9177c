"""Check a class of transformers, and how many weights it has, before they are downloaded or read."""

from __future__ import annotations

import logging
from functools import partial
from typing import NamedTuple

from torch import nn

from fllm.containment import contained
from fllm.errors import ModelError
from fllm_backends.torch.transformers_lm.decoder import TransformersLM
from fllm_backends.torch.transformers_lm.loading import describe
from fllm_backends.torch.transformers_lm.model_class import TransformersModel
from fllm_backends.torch.transformers_lm.packed_modules import packable

log = logging.getLogger("fllm.model")


class ClassSize(NamedTuple):
    """Numbers of weights."""

    packable: int
    """Of linear layers and experts, which a CPU packs."""
    linear: int
    """Of these, the weights of linear layers, which a CUDA device quantizes."""
    others: int


def check_class(model: TransformersModel) -> ClassSize:
    """Run one token through the model without weights. Raise `ModelError` if its class can't be served."""
    empty = describe(model)
    parts = list(packable(empty))
    packed = {id(weight) for part in parts for weight in part.weights}
    linear = {id(weight) for part in parts if part.is_linear for weight in part.weights}
    tables = {id(each.weight) for each in empty.modules() if isinstance(each, nn.Embedding)}
    counts = {id(parameter): parameter.numel() for parameter in empty.parameters()}
    with contained(partial(log.debug, "%s needs weights to run: %s", model.name), passing=(ModelError,)):
        TransformersLM(empty)
    return ClassSize(
        sum(count for key, count in counts.items() if key in packed),
        sum(count for key, count in counts.items() if key in linear),
        # An embedding stays as it is, even if the output head has the same weights.
        sum(count for key, count in counts.items() if key not in packed or key in tables),
    )
