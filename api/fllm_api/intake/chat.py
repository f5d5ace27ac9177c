"""Turn a chat request into a pipeline request."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import Struct

from fllm.chat import ChatTemplate, RequestTemplate
from fllm.chat.reasoning_controls import SWITCHES
from fllm.concurrency.turn_executor import Pieces
from fllm.errors import RequestError
from fllm.interfaces import ParserContext
from fllm.pipeline.pipeline import PipelineRequest
from fllm.requests.chat import ChatMessage, ChatRequest
from fllm.values import ModelCard, PreparedImages, Tool
from fllm_api.app_state import AppState
from fllm_api.intake.history import template_messages
from fllm_api.intake.images import has_images, render_images, replace_urls
from fllm_api.intake.prefix_cache import count_shared_tokens
from fllm_api.intake.reasoning import TEMPLATE_BUDGET, ReasoningSettings, read_reasoning
from fllm_api.intake.response_size import (
    check_echo,
    count_alternatives,
    count_prompt_logprobs,
    logprob_bound,
)
from fllm_api.intake.sampling import (
    check_fields,
    check_sequences,
    first_set,
    requested_max_tokens,
    resolve_candidates,
    resolve_max_tokens,
    resolve_sampling,
    stop_strings,
)
from fllm_api.intake.tokenization import read_truncation, tokenize_prompt
from fllm_api.intake.tool_choice import call_format, plan_tool_calls
from fllm_api.intake.tools import read_tools, template_tool
from fllm_api.intake.unsupported_fields import reject_unsupported_fields
from fllm_api.limits.admission import max_sequences


class PreparedChat(Struct, frozen=True, kw_only=True):
    """A pipeline request, and the values that the response encoder needs."""

    request: PipelineRequest
    role: str
    echo: str
    """Text to repeat at the start of the response."""
    includes_reasoning: bool
    """Whether the response includes the reasoning."""
    parallel_tool_calls: bool
    new_call_id: Callable[[], str] | None
    """Makes ids of calls that the chat template accepts, if it demands a form of its own."""


def prepare_chat(
    body: ChatRequest, server: AppState, images: PreparedImages | None = None
) -> Pieces[PreparedChat]:
    """Validate, render and tokenize a request. Raise `RequestError` if it is invalid.

    ``images`` are what `fllm_api.intake.images.read_images` returned for it.
    """
    _reject_unsupported_fields(body, server)
    check_fields(body, server)
    adapter = server.adapters.find(body.model)
    n, best_of, beam = resolve_candidates(body)
    check_sequences(1, n, best_of, beam, max_sequences(server.card, server.config))
    logprobs, stop = _logprobs(body), stop_strings(body)
    _check_messages(body.messages)
    tools = read_tools(body, server.config)
    plan = plan_tool_calls(body, tools, server)
    requested = _requested_max_tokens(body, server.card)
    truncation = read_truncation(body, server.card, requested)
    if images is not None and truncation is not None:
        raise RequestError("a prompt with images can't be truncated", param="truncate_prompt_tokens")
    alternatives = count_alternatives(body, logprobs)
    bound = logprob_bound(
        alternatives, 1, n, best_of, beam, server.config.max_logprob_entries, "top_logprobs"
    )
    if requested is not None and requested < server.card.max_model_len:
        bound.limit_max_tokens(requested)
    yield 0
    reasoning = read_reasoning(body)
    kwargs = _template_kwargs(body, reasoning, server)
    prompt = _render(body, server, tools, kwargs, images)
    yield 0
    ids = yield from tokenize_prompt(
        prompt,
        server.tokenizer,
        server.card,
        add_special_tokens=bool(body.add_special_tokens),
        truncation=truncation,
        param="messages",
    )
    if not ids:
        raise RequestError("the chat template renders these messages as an empty prompt", param="messages")
    max_tokens = resolve_max_tokens(
        server.card, len(ids), requested, server.card.defaults.max_tokens, param="messages"
    )
    max_tokens = bound.limit_max_tokens(
        max_tokens,
        prompt_entries=count_prompt_logprobs(body, len(ids) * max(n, best_of)),
        reducible=max_tokens != requested,
    )
    request = PipelineRequest(
        prompts=[ids],
        sampling=resolve_sampling(body, server, max_tokens=max_tokens, logprobs=logprobs),
        n=n,
        best_of=best_of,
        beam=beam,
        stop=stop,
        include_stop=bool(body.include_stop_str_in_output),
        skip_special_tokens=body.skip_special_tokens is not False,
        continues_prompt=_continues_final_message(body),
        reasoning_parser=server.reasoning_parser,
        max_reasoning_tokens=_max_reasoning_tokens(body, reasoning, server),
        tool_parser=plan.parser,
        priority=body.priority or 0,
        calls_only=plan.calls_only,
        cache_salt=body.cache_salt or "",
        adapter=adapter,
        shared_tokens=count_shared_tokens([ids], server),
        context=ParserContext(
            prompt=prompt,
            tools=tools,
            template_kwargs=kwargs,
            continued_message=_text(body.messages[-1]) if _continues_final_message(body) else None,
            auto_selected=_is_auto(server),
        ),
        output_constraint=plan.output_constraint,
        images=images.keys if images else (),
    )
    role = server.config.response_role if _generation_prompt(body) else body.messages[-1].role
    echo = _echo(body, role)
    check_echo(n * len(echo))
    own_template = server.template is not None and body.chat_template is None
    return PreparedChat(
        request=request,
        role=role,
        echo=echo,
        includes_reasoning=reasoning.included,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        new_call_id=server.template.call_id_factory if own_template and server.template else None,
    )


def render_chat(body: ChatRequest, server: AppState, images: PreparedImages | None = None) -> str:
    """Return the text of a request's prompt. Raise `RequestError` if the chat template rejects it."""
    _reject_unsupported_fields(body, server)
    _check_messages(body.messages)
    tools, kwargs = read_tools(body, server.config), _template_kwargs(body, read_reasoning(body), server)
    return _render(body, server, tools, kwargs, images)


def _render(
    body: ChatRequest,
    server: AppState,
    tools: tuple[Tool, ...],
    kwargs: dict[str, Any],
    images: PreparedImages | None = None,
) -> str:
    messages = template_messages(body.messages[:-1] if _ends_with_nothing(body) else body.messages)
    if images is not None:
        messages = replace_urls(messages)
    render = partial(
        _template(body, server).render,
        messages,
        tools=[template_tool(tool) for tool in tools] or None,
        add_generation_prompt=_generation_prompt(body),
        continue_final_message=_continues_final_message(body),
        inject_tools=True,
        call_format=call_format(server.tool_parser),
        explain_calls=server.tool_parser is None,
        kwargs=kwargs,
    )
    if images is None:
        return render()
    return render_images(lambda keep: render(keep_image_parts=keep), messages, images, server)


def _template(body: ChatRequest, server: AppState) -> ChatTemplate | RequestTemplate:
    if body.chat_template is not None and server.request_templates is not None:
        if not isinstance(body.chat_template, str):
            raise RequestError("`chat_template` must be a string", param="chat_template")
        return server.request_templates.template(body.chat_template)
    if server.template is None:
        raise RequestError(
            "the model has no chat template: start the server with --chat-template FILE, "
            "or use /v1/completions"
        )
    return server.template


def _is_auto(server: AppState) -> bool:
    choice = server.parser_choices.get("reasoning_parser")
    return choice is not None and choice.selected_by == "auto"


def _generation_prompt(body: ChatRequest) -> bool:
    return first_set(body.add_generation_prompt, default=not _continues_final_message(body))


def _continues_final_message(body: ChatRequest) -> bool:
    """Return whether the response continues the final message: by default, if it is the assistant's text."""
    if body.continue_final_message is not None or body.add_generation_prompt is not None:
        return bool(body.continue_final_message)
    return _is_prefill(body.messages[-1]) and bool(_text(body.messages[-1]).strip())


def _ends_with_nothing(body: ChatRequest) -> bool:
    """Return whether the final message is the beginning of a response, but an empty one."""
    *others, final = body.messages
    flags = (body.continue_final_message, body.add_generation_prompt)
    return (
        bool(others)
        and flags == (None, None)
        and _is_prefill(final)
        and not _text(final).strip()
        and not has_images([final])
    )


def _is_prefill(message: ChatMessage) -> bool:
    reasoning = message.reasoning_content or message.reasoning or message.thinking
    others = message.tool_calls or message.function_call or (reasoning and not _text(message).strip())
    return message.role == "assistant" and not others


def _template_kwargs(body: ChatRequest, reasoning: ReasoningSettings, server: AppState) -> dict[str, Any]:
    own, defaults = body.chat_template_kwargs or {}, server.config.default_chat_template_kwargs
    variables = reasoning.template_variables(_template(body, server).reasoning_controls)
    if any(name in own for name in SWITCHES):
        variables = {name: value for name, value in variables.items() if name not in SWITCHES}
    documents = {} if body.documents is None else {"documents": body.documents}
    return {**defaults, **variables, **documents, **own}


def _reject_unsupported_fields(body: ChatRequest, server: AppState) -> None:
    reject_unsupported_fields(body, () if server.request_templates is None else ("chat_template",))


def _check_messages(messages: list[ChatMessage]) -> None:
    if not messages:
        raise RequestError("`messages` is empty; send at least one message", param="messages")
    for i, message in enumerate(messages):
        if message.content is None and message.role not in ("assistant", "function", "tool"):
            raise RequestError(
                f"`messages[{i}].content` is missing: a message with role {message.role!r} requires content",
                param=f"messages[{i}].content",
            )


def _max_reasoning_tokens(body: ChatRequest, reasoning: ReasoningSettings, server: AppState) -> int | None:
    if reasoning.budget is None:
        return None
    param = reasoning.budget_param
    if server.reasoning_parser is None:
        if param == TEMPLATE_BUDGET:  # the template may have its own use for it
            return None
        raise RequestError(
            f"`{param}` requires a reasoning parser: start the server with --reasoning-parser NAME",
            param=param,
            code="unsupported_parameter",
        )
    if body.use_beam_search:
        raise RequestError(f"`{param}` can't be combined with `use_beam_search`", param=param)
    return reasoning.budget


def _requested_max_tokens(body: ChatRequest, card: ModelCard) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        if getattr(body, name) == 0:
            raise RequestError(
                f"`{name}` is 0, but a message has at least one token; -1 means no maximum", param=name
            )
    return requested_max_tokens(card, body.max_completion_tokens, body.max_tokens)


def _logprobs(body: ChatRequest) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise RequestError("`top_logprobs` requires `logprobs`: true", param="top_logprobs")
    return None


def _echo(body: ChatRequest, role: str) -> str:
    last = body.messages[-1]
    return _text(last) if body.echo and last.role == role else ""


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, list):
        return "\n".join(part.text or part.refusal or "" for part in message.content)
    return message.content or message.refusal or ""
