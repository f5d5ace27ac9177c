"""Ask questions about a state, and read the answers from the first token of each reply."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from fllm import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    Generation,
    RequestError,
    SequenceOutput,
    Serving,
)
from fllm.concurrency.turn_executor import Pieces
from fllm.errors import ContextTooLong
from fllm_dialects.field_names import field_names
from fllm_dialects.systemone.labels import Label, LabelTokens
from fllm_dialects.systemone.questions import Question, Reading, new_reading

MANY_OPTIONS = 26
"""Number of options with which finding labels takes milliseconds."""


LONG_PROMPT_TOKENS = 256
"""Length of a prompt from which the first question is asked alone, so that the others find the state in the
prefix cache."""


class Answers(Struct, frozen=True, kw_only=True):
    """The readings of all questions, in their order."""

    model: str
    readings: list[Reading]
    input_tokens: int
    """Tokens of all prompts. Each has the whole state."""
    cached_tokens: int
    """Those that were found in the prefix cache."""


class StateReader:
    """Asks questions about a state. Each is a chat that begins with the state, which is computed once."""

    def __init__(self, server: Serving, model: str | None, state: str, instructions: str = "") -> None:
        self._server = server
        self._model = model
        self._state = state
        self._instructions = instructions

    async def ask(self, questions: Sequence[Question], state_field: str) -> Answers:
        """Return the answers. The state is the field ``state_field`` of the client's request.

        Raise `RequestError` for what can't be asked, or what the limits of the client raise.
        """
        if not self._state.strip():
            raise RequestError(f"`{state_field}` is empty", param=state_field)
        with field_names({"messages": state_field}):
            tokens = LabelTokens(self._server.tokenizer, await self._prompt("-"))
            many = max(len(question.options) for question in questions) > MANY_OPTIONS
            labels = await self._server.prepare(_labels(questions, tokens), slow=many)
            texts = [question.text(each) for question, each in zip(questions, labels, strict=True)]
            prompts = [await self._prompt_within_context(text, state_field) for text in texts]
        with field_names({"prompt": "questions"}):
            return await self._read(prompts, labels)

    async def _prompt_within_context(self, question: str, state_field: str) -> list[int]:
        """Return the prompt of a question. Raise `ContextTooLong`, before those of further ones are made."""
        prompt = await self._prompt(f"{self._state}\n\n{question}")
        context = self._server.card.max_model_len
        if len(prompt) >= context:
            raise ContextTooLong.for_prompt(
                context,
                f"the prompt has {len(prompt)} tokens, which leaves no room for output",
                param=state_field,
            )
        return prompt

    async def _prompt(self, text: str) -> list[int]:
        messages = [ChatMessage(role="user", content=text)]
        if self._instructions:
            messages.insert(0, ChatMessage(role="system", content=self._instructions))
        return await self._server.tokenize_chat(
            ChatRequest(model=self._model, messages=messages, reasoning_effort="none")
        )

    async def _read(self, prompts: list[list[int]], labels: Sequence[Sequence[Label]]) -> Answers:
        given = dict.fromkeys(token for each in labels for label in each for token in label.token_ids)
        # Prompts that are computed at the same time do not find each other in the prefix cache.
        first = 1 if len(prompts[0]) >= LONG_PROMPT_TOKENS else len(prompts)
        generations = [
            await self._generation(each, [*given]) for each in (prompts[:first], prompts[first:]) if each
        ]
        outputs = [output for each in generations for output in await self._server.whole(each)]
        return Answers(
            model=generations[0].model,
            readings=[_reading(*each) for each in zip(labels, outputs, strict=True)],
            input_tokens=sum(each.prompt_tokens for each in generations),
            cached_tokens=sum(output.usage.cached_tokens for output in outputs),
        )

    async def _generation(self, prompts: list[list[int]], token_ids: list[int]) -> Generation:
        return await self._server.read_completion(
            CompletionRequest(
                model=self._model,
                prompt=[*prompts],
                max_tokens=1,
                temperature=0,
                logprobs=0,
                logprob_token_ids=token_ids,
            )
        )


def _labels(questions: Sequence[Question], tokens: LabelTokens) -> Pieces[list[list[Label]]]:
    labels: list[list[Label]] = []
    for question in questions:
        labels.append(question.labels(tokens))
        yield 0
    return labels


def _reading(labels: Sequence[Label], output: SequenceOutput) -> Reading:
    logprob = output.tokens[0].logprob if output.tokens else None
    logprobs = {} if logprob is None else dict(logprob.top)
    if logprob is None or any(token not in logprobs for label in labels for token in label.token_ids):
        raise RequestError(
            "decisions are not supported: this server's backend does not report the log-probabilities of "
            "given tokens",
            param="model",
            code="unsupported_model",
        )
    return new_reading(labels, logprobs, logprob.token_id)
