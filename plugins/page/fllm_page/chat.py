"""`POST /page/chat`: the chat of the page, with what it shows about a response."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse
from msgspec.structs import replace

from fllm import NAMED_EVENTS, USES_ENGINE, ErrorInfo, Generation, Serving, error_body
from fllm.control_tokens import unescape
from fllm_page.chat_encoder import PageChatEncoder, parser_names, shown_tokens
from fllm_page.chat_events import ErrorEvent, PageChatRequest, Prompt

ALTERNATIVES = 5
"""Number of likely tokens to show for each token, if the request does not say."""


def page_error(status: int, error: ErrorInfo, request_id: str) -> ErrorEvent:  # noqa: ARG001
    """Return the body of an error response: the event of a stream that fails."""
    return ErrorEvent(error)


@post(
    "/page/chat",
    status_code=200,
    opt={**USES_ENGINE, **error_body(page_error, NAMED_EVENTS)},
    include_in_schema=False,
)
async def chat(data: JSONBody[PageChatRequest], server: NamedDependency[Serving]) -> ASGIResponse:
    """Return the stream of a chat, with its tokens if the request asks for them."""
    if data.inspect:
        top = ALTERNATIVES if data.top_logprobs is None else data.top_logprobs
        data = replace(data, logprobs=True, top_logprobs=top)
    generation = await server.read_chat(data, allowed_counts=data.inspect)
    prompt = await _prompt(data, generation, server) if data.inspect else None
    encoder = PageChatEncoder(generation, server.tokenizer, server.request_id, prompt)
    response: ASGIResponse = server.respond(generation, encoder, stream=True)
    return response


async def _prompt(request: PageChatRequest, generation: Generation, server: Serving) -> Prompt:
    parsers, text = parser_names(generation), generation.request.context.prompt
    return Prompt(
        text=unescape(text),
        tokens=await server.prepare(shown_tokens(server.tokenizer, generation.request.prompts[0])),
        model=generation.model,
        reasoning_parser=parsers.reasoning,
        tool_call_parser=parsers.tool_calls,
        template="model" if request.chat_template is None else "request",
    )
