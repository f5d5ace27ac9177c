"""Triton's decorator with a type: a decorated function is started as ``function[grid](...)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton  # pyright: ignore[reportMissingImports]  (comes with torch for cuda)

kernel: Callable[[Callable[..., None]], Any] = triton.jit
