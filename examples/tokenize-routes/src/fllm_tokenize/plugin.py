"""What this package offers; Litestar takes half a second to import, so only a server does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fllm import hookimpl


@hookimpl
def fllm_routes() -> Iterable[Any]:
    """`POST /tokenize` and `POST /detokenize`."""
    from fllm_tokenize.routes import detokenize, tokenize

    yield tokenize
    yield detokenize
