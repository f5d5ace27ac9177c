"""Begin to generate a response: read the request, and make the encoder of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fllm import Generation, Serving
from fllm_dialects.field_names import field_names
from fllm_dialects.responses.encoder import ResponsesEncoder
from fllm_dialects.responses.ids import new_id
from fllm_dialects.responses.logprobs import TextLogprobs
from fllm_dialects.responses.protocol.items import InputItem
from fllm_dialects.responses.protocol.requests import ResponsesRequest
from fllm_dialects.responses.reader import LOGPROBS, is_long, read_in_pieces
from fllm_dialects.responses.snapshot import new_response
from fllm_dialects.responses.truncation import read_within_context


async def new_generation(
    server: Serving,
    body: ResponsesRequest,
    *,
    earlier: Sequence[InputItem] = (),
    references: Mapping[str, InputItem] | None = None,
    response_id: str | None = None,
    store: bool = False,
) -> tuple[Generation, ResponsesEncoder]:
    """Return the generation and the encoder of a response; see `read_request`.

    Raise `RequestError` for what is invalid, with the names of the request's fields.
    """
    reading = read_in_pieces(body, earlier=earlier, references=references)
    request = await server.prepare(reading, slow=is_long(earlier))
    with field_names(request.field_names):
        if body.truncation == "auto":
            generation = await read_within_context(server, request.chat)
        else:
            generation = await server.read_chat(request.chat)
    response = new_response(
        body, generation, request.tools.offered, response_id=response_id or new_id("resp_"), store=store
    )
    logprobs = TextLogprobs(server.tokenizer) if LOGPROBS in (body.include or ()) else None
    return generation, ResponsesEncoder(response, request.tools.called, logprobs=logprobs)
