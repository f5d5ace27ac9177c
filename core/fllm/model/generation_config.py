"""Sampling defaults: those of ``generation_config.json``, in the ranges that requests have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from fllm.errors import ModelError
from fllm.values import SamplingDefaults


class _GenerationConfig(Struct):
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    max_new_tokens: Annotated[int, Meta(ge=1, lt=2**31)] | None = None


SAMPLING_KEYS = _GenerationConfig.__struct_fields__
"""The keys that are read. All others are ignored."""


def sampling_defaults(content: Mapping[str, Any], where: str) -> SamplingDefaults:
    """Return what ``generation_config.json`` recommends; no defaults if it disables sampling.

    Raise `ModelError` that begins with ``where`` if a value is out of its range.
    """
    if content.get("do_sample") is False:
        return SamplingDefaults()
    try:
        found = msgspec.convert(content, _GenerationConfig)
    except msgspec.ValidationError as error:
        raise ModelError(f"{where}: {error}") from error
    return SamplingDefaults(
        temperature=found.temperature,
        top_p=found.top_p,
        top_k=found.top_k,
        min_p=found.min_p,
        repetition_penalty=found.repetition_penalty,
        max_tokens=found.max_new_tokens,
    )
