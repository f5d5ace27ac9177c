"""LitServe's `OpenAISpec` over an engine that costs nothing: ``python echo_litserve.py PORT``, with litserve."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import litserve

WORDS = [
    f" {word}" for word in "the river runs past an old bridge and every summer the children come".split()
]


class Echo(litserve.LitAPI):
    """A word for each token that was asked for."""

    def setup(self, device: str) -> None:
        pass

    def predict(self, prompt: Any, context: dict[str, Any]) -> Iterator[str]:
        yield from islice(cycle(WORDS), context["max_tokens"])


if __name__ == "__main__":
    server = litserve.LitServer(Echo(spec=litserve.OpenAISpec()), accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
