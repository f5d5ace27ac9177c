"""LitServe's `OpenAISpec` over an engine that costs nothing: ``python echo_litserve.py PORT``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import litserve

WORDS = (" the", " river", " runs", " past", " an", " old", " bridge", " and", " every", " summer")


class Echo(litserve.LitAPI):
    """Returns a word for each requested token."""

    def setup(self, device: str) -> None:
        """Load nothing."""

    def predict(self, prompt: Any, context: dict[str, Any]) -> Iterator[str]:  # noqa: ARG002
        """Yield the words one by one."""
        yield from islice(cycle(WORDS), context["max_tokens"])


if __name__ == "__main__":
    server = litserve.LitServer(Echo(spec=litserve.OpenAISpec()), accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
