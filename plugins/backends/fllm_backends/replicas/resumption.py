"""What a request has received, so that another engine can continue it."""

from __future__ import annotations

from msgspec.structs import replace

from fllm import EngineOutput, GenerateRequest


class Resumption:
    """The tokens of one request."""

    def __init__(self, request: GenerateRequest) -> None:
        self._request = request
        self._generated = list(request.generated)

    @property
    def started(self) -> bool:
        """Whether the request has received tokens."""
        return len(self._generated) > len(self._request.generated)

    @property
    def request(self) -> GenerateRequest:
        """The request for the next engine."""
        return replace(self._request, generated=tuple(self._generated)) if self.started else self._request

    def record(self, output: EngineOutput) -> None:
        """Record an output."""
        self._generated += output.token_ids
