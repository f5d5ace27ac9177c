"""`POST /v1/completions`."""

from __future__ import annotations

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse

from fllm.requests.completions import CompletionRequest
from fllm.serving import DATA_EVENTS
from fllm_api.encoding.completions import CompletionEncoder
from fllm_api.encoding.encoder import ResponseHeader, new_id
from fllm_api.encoding.logprobs import TokenFormatter
from fllm_api.encoding.token_details import token_details
from fllm_api.encoding.usage import UsageAccumulator
from fllm_api.middleware.prompt_length import PROMPT_IS_TEXT
from fllm_api.openapi.responses import StreamedOperation, errors, success
from fllm_api.protocol.completions import Completion
from fllm_api.serving.generation import ServedGeneration
from fllm_api.serving.request_serving import RequestServing


class CompletionsController(Controller):
    """Creates completions of a plain text."""

    path = "/v1/completions"
    tags = ("OpenAI",)
    opt = PROMPT_IS_TEXT

    @post(
        status_code=200,
        operation_class=StreamedOperation,
        responses={**success(Completion), **errors(400, 401, 404, 413, 415, 429, 500, 503, 504)},
        summary="Create a completion",
    )
    async def create(
        self, data: JSONBody[CompletionRequest], server: NamedDependency[RequestServing]
    ) -> ASGIResponse:
        """Return completions of one or several prompts as one JSON object or as a stream of events."""
        generation = await server.read_completion(data)
        encoder = _new_encoder(data, generation, server)
        return server.respond(generation, encoder, stream=bool(data.stream), framing=DATA_EVENTS)


def _new_encoder(
    body: CompletionRequest, generation: ServedGeneration, server: RequestServing
) -> CompletionEncoder:
    formatter = TokenFormatter(server.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
    return CompletionEncoder(
        ResponseHeader(new_id("cmpl-"), generation.model, generation.created),
        UsageAccumulator(generation.prompt_tokens, generation.request.n, body.stream_options),
        n=generation.request.n,
        formatter=None if body.logprobs is None else formatter,
        echoes=generation.echoes,
        details=token_details(body, generation.request, formatter),
        echoed_logprobs=body.logprobs,
    )
