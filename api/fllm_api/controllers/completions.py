"""`POST /v1/completions`."""

from __future__ import annotations

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from fllm.requests.completions import CompletionRequest
from fllm_api.app_state import AppState
from fllm_api.controllers.responses import GenerationResponse, create_response
from fllm_api.encoding.completions import CompletionEncoder
from fllm_api.encoding.encoder import ResponseHeader, new_id
from fllm_api.encoding.logprobs import TokenFormatter
from fllm_api.encoding.token_details import token_details
from fllm_api.encoding.usage import UsageAccumulator
from fllm_api.intake.completions import PreparedCompletion, prepare_completion
from fllm_api.intake.json_body import ApiRequest
from fllm_api.intake.preparation import prepare
from fllm_api.middleware.prompt_length import PROMPT_IS_TEXT
from fllm_api.openapi.responses import StreamedOperation, errors, success
from fllm_api.protocol.completions import Completion


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
        self, request: ApiRequest, data: JSONBody[CompletionRequest], server: NamedDependency[AppState]
    ) -> GenerationResponse:
        """Return completions of one or several prompts as one JSON object or as a stream of events."""
        prepared = await prepare(request, prepare_completion(data, server), server.turns)
        encoder = _new_encoder(data, prepared, server)
        return create_response(request, server, prepared.request, encoder, stream=bool(data.stream))


def _new_encoder(
    body: CompletionRequest, prepared: PreparedCompletion, server: AppState
) -> CompletionEncoder:
    prompt_tokens = sum(map(len, prepared.request.prompts))
    formatter = TokenFormatter(server.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
    return CompletionEncoder(
        ResponseHeader(new_id("cmpl-"), server.model_name(prepared.request.adapter)),
        UsageAccumulator(prompt_tokens, prepared.request.n, body.stream_options),
        n=prepared.request.n,
        formatter=None if body.logprobs is None else formatter,
        echoes=prepared.echoes,
        details=token_details(body, prepared.request, formatter),
        echoed_logprobs=body.logprobs,
    )
