"""`POST /v1/completions`."""

from __future__ import annotations

import asyncio

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from fllm_api.app_state import AppState
from fllm_api.controllers.responses import Answer, answer
from fllm_api.encoding.completions import CompletionEncoder
from fllm_api.encoding.encoder import ResponseHeader, new_id
from fllm_api.encoding.logprobs import TokenFormatter
from fllm_api.encoding.usage import UsageAccumulator
from fllm_api.intake.completions import PreparedCompletion, prepare_completion
from fllm_api.intake.json_body import ApiRequest, require_json
from fllm_api.middleware.admission import ADMITTED
from fllm_api.openapi.responses import StreamedOperation, errors, success
from fllm_api.protocol.completions import Completion, CompletionRequest


class CompletionsController(Controller):
    """Completions of a bare text."""

    path = "/v1/completions"
    tags = ("OpenAI",)
    opt = ADMITTED

    @post(
        status_code=200,
        before_request=require_json,
        operation_class=StreamedOperation,
        responses={**success(Completion), **errors(400, 401, 413, 415, 429, 500, 503, 504)},
        summary="Continue a text",
    )
    async def create(
        self, request: ApiRequest, data: JSONBody[CompletionRequest], server: NamedDependency[AppState]
    ) -> Answer:
        """Continue one or several texts, whole or as a stream of events."""
        asked = await asyncio.to_thread(prepare_completion, data, server)
        encoder = _encoder(data, asked, server)
        return answer(request, server, asked.request, encoder, stream=bool(data.stream))


def _encoder(body: CompletionRequest, asked: PreparedCompletion, server: AppState) -> CompletionEncoder:
    prompt_tokens = sum(map(len, asked.request.prompts))
    formatter = TokenFormatter(server.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
    return CompletionEncoder(
        ResponseHeader(new_id("cmpl-"), server.config.served_model_name),
        UsageAccumulator(prompt_tokens, asked.request.n, body.stream_options),
        n=asked.request.n,
        formatter=None if body.logprobs is None else formatter,
        echoes=asked.echoes,
    )
