"""Find out which conversations a chat template can express, by rendering small ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from fllm.chat.history_adaptation import (
    SYSTEM_ROLES,
    Adapt,
    Message,
    Messages,
    Write,
    alternate_roles,
    alternate_turns,
    answer_calls,
    begin_with_user,
    calls_and_results_as_text,
    calls_as_text,
    fill_empty_answers,
    join_parts_of,
    join_system_messages,
    move_system_into_first_user,
    move_system_into_last_user,
    new_short_id,
    orphans_as_text,
    rename_results,
    results_as_text,
    separate_answered_text_from_calls,
    separate_calls,
    separate_text_from_calls,
    shorten_call_ids,
)
from fllm.chat.tool_prompt import DEFAULT_CALL_FORMAT, CallFormat

TryRender = Callable[[Messages], str]
"""Renders a conversation; returns an empty text if the template rejects it."""

PROBE_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {"name": "f", "description": "f", "parameters": {"type": "object", "properties": {}}},
}
"""A tool for probing templates."""
COMMON_ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles that every template can express, adapted if need be."""
OWN_ROLES = (
    *("ipython", "tool_response", "tool_responses", "tool_result", "tool_results", "observation"),
    *("environment", "documents", "document", "context", "critic", "knowledge"),
)
"""Roles of some models, which a template may render without naming them."""


class Adaptation(Struct, frozen=True):
    """A change of conversations that makes a template render them whole."""

    description: str
    adapt: Adapt | None = None
    write: Write | None = None
    """Replaces ``adapt`` where tool calls become text."""

    def __call__(self, messages: Messages, call_format: CallFormat) -> list[Message]:
        """Return the changed conversation."""
        if self.write is not None:
            return self.write(messages, call_format)
        assert self.adapt is not None
        return self.adapt(messages)


class TemplateRules(Struct, frozen=True):
    """What a template needs, as found at load."""

    adaptations: tuple[Adaptation, ...] = ()
    """In the order of application."""
    roles: frozenset[str] = frozenset(COMMON_ROLES)
    """The roles of messages that it renders."""

    def adapt(self, messages: Messages, call_format: CallFormat = DEFAULT_CALL_FORMAT) -> list[Message]:
        """Return the conversation as the template can express it. Calls become text in ``call_format``."""
        for each in self.adaptations:
            messages = each(messages, call_format)
        return list(messages)

    @property
    def call_id_factory(self) -> Callable[[], str] | None:
        """The function that makes the ids of new calls, if the template accepts only ids of one form."""
        return new_short_id if any(each.adapt is shorten_call_ids for each in self.adaptations) else None


class _TryOut(Struct, frozen=True):
    messages: Messages
    shown: Sequence[str]
    """Lists of words; the words of one list must be in the prompt in this order."""


def _try_out(*messages: Message, shown: Sequence[str] = ()) -> _TryOut:
    """Return a conversation for trying; by default, its contents must be in the prompt in order."""
    return _TryOut(messages, shown or [" ".join(each["content"] for each in messages if each["content"])])


def _system(content: str) -> Message:
    return {"role": "system", "content": content}


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str | None, *names: str, **fields: Any) -> Message:
    calls = [_call(name) for name in names]
    return {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {}), **fields}


def _call(name: str, call_id: str = "") -> Message:
    function = {"name": name, "arguments": '{"in": "city"}'}
    return {"id": call_id or _call_id(name), "type": "function", "function": function}


def _result(name: str, call_id: str = "") -> Message:
    return {"role": "tool", "tool_call_id": call_id or _call_id(name), "content": name[::-1]}


def _call_id(name: str) -> str:
    return f"call{name:0>5}"[:9]  # Mistral's templates require nine letters and digits


_SYSTEM = _system("civet")
_ASKED, _ANSWERED, _THANKED = _user("zebu"), _assistant("okapi"), _user("tapir")
_PARTS = [{"type": "text", "text": each} for each in ("civet", "gaur")]
_PLAIN = _try_out(_ASKED, _ANSWERED, _THANKED)
"""A template that loses one of these is none of conversations, so nothing is adapted."""
_FOREIGN_IDS = ("call_0123456789abcdefghijklmn", "1")


class _Rule(Struct, frozen=True):
    try_outs: Sequence[_TryOut]
    adaptations: Sequence[Adaptation]


_CALLS_AS_TEXT = Adaptation("tool calls become text", write=calls_as_text)
_BOTH_AS_TEXT = Adaptation("tool calls and their results become text", write=calls_and_results_as_text)
_RULES: Sequence[_Rule] = (
    _Rule(
        [
            _try_out(_ASKED, _ANSWERED, _result("quoll"), _THANKED),
            _try_out(_result("quoll"), _ASKED),
            _try_out(_ASKED, _result("quoll"), _ANSWERED),
            _try_out(
                *(_ASKED, _assistant(None, "quoll"), _result("quoll"), _result("gaur"), _ANSWERED, _THANKED),
                shown=["zebu quoll llouq okapi tapir", "zebu ruag okapi"],
            ),
        ],
        [Adaptation("results of tools without a call become messages of the user", orphans_as_text)],
    ),
    _Rule(
        [
            _try_out(
                _ASKED,
                _assistant(None, "quoll"),
                _result("quoll"),
                _ANSWERED,
                _THANKED,
                shown=["zebu quoll llouq okapi tapir"],
            ),
            _try_out(_ASKED, _assistant(None, "quoll"), _THANKED, shown=["zebu quoll tapir"]),
        ],
        [
            *(
                Adaptation(f"results of tools get the role {role}", rename_results(role))
                for role in (
                    "ipython",
                    "tool_response",
                    "tool_responses",
                    "tool_results",
                    "observation",
                    "function",
                )
            ),
            Adaptation("results of tools become messages of the user", results_as_text),
            _CALLS_AS_TEXT,
            _BOTH_AS_TEXT,
        ],
    ),
    _Rule(
        [
            _try_out(_ASKED, _assistant(None, "quoll"), _THANKED, shown=["zebu quoll tapir"]),
            _try_out(_ASKED, _assistant("civet", "quoll"), shown=["zebu civet", "zebu quoll"]),
        ],
        [Adaptation("tool calls without a result get an empty one", answer_calls)],
    ),
    _Rule(
        [
            _try_out(
                _ASKED,
                _assistant(None, "quoll", "gaur"),
                _result("quoll"),
                _result("gaur"),
                _ANSWERED,
                _THANKED,
                shown=["zebu quoll gaur okapi tapir", "quoll llouq ruag okapi"],
            )
        ],
        [Adaptation("each of several tool calls gets a message of its own", separate_calls)],
    ),
    _Rule(
        [
            _try_out(
                _ASKED,
                _assistant("civet", "quoll"),
                _result("quoll"),
                _ANSWERED,
                _THANKED,
                shown=["zebu civet okapi tapir", "zebu quoll llouq okapi"],
            ),
            _try_out(
                _ASKED,
                _assistant("civet", "quoll"),
                _result("quoll"),
                shown=["zebu civet", "zebu quoll llouq"],
            ),
            _try_out(
                *(_ASKED, _assistant("civet", "quoll"), _result("quoll")),
                *(_assistant("okapi", "gaur"), _result("gaur")),
                shown=["zebu civet okapi", "zebu quoll llouq gaur ruag"],
            ),
            _try_out(
                _ASKED,
                _assistant("civet", "quoll", reasoning_content="gaur"),
                _result("quoll"),
                shown=["zebu civet", "zebu quoll llouq"],
            ),
        ],
        [
            Adaptation(
                "text next to a tool call gets a message of its own once there is an answer",
                separate_answered_text_from_calls,
            ),
            Adaptation("text next to a tool call gets a message of its own", separate_text_from_calls),
        ],
    ),
    _Rule(
        [
            _try_out(
                _ASKED,
                {**_assistant(None), "tool_calls": [_call("quoll", each)]},
                _result("quoll", each),
                shown=["zebu quoll llouq"],
            )
            for each in _FOREIGN_IDS
        ],
        [Adaptation("ids of tool calls get the form of nine letters and digits", shorten_call_ids)],
    ),
    _Rule(
        [
            _try_out(_SYSTEM, _ASKED),
            _try_out(_SYSTEM, _system("gaur"), _ASKED, shown=["civet gaur", "zebu"]),
            _try_out(_ASKED, _ANSWERED, _system("gaur"), _THANKED, shown=["zebu okapi tapir", "gaur"]),
            _try_out(
                _SYSTEM,
                _ASKED,
                _assistant(None, "quoll"),
                _result("quoll"),
                shown=["zebu quoll llouq", "civet"],
            ),
            _try_out(_SYSTEM, _ASKED, _ANSWERED, shown=["zebu okapi", "civet"]),
        ],
        [
            Adaptation("system messages are joined into one at the beginning", join_system_messages),
            Adaptation(
                "system messages are joined, within the last user message unless that is the final one",
                move_system_into_last_user,
            ),
            Adaptation("system messages move into the first user message", move_system_into_first_user),
        ],
    ),
    _Rule(
        [
            _try_out(_SYSTEM),
            _try_out(_ANSWERED, _THANKED),
            _try_out(_assistant(None, "quoll"), _result("quoll"), _THANKED, shown=["quoll llouq tapir"]),
        ],
        [Adaptation("an empty user message begins conversations without one", begin_with_user)],
    ),
    _Rule(
        [
            _try_out(_ASKED, _user("gaur"), _ANSWERED, _assistant("civet"), _THANKED),
            _try_out(_ASKED, _ANSWERED, _assistant(None, "quoll"), shown=["zebu okapi", "zebu quoll"]),
            _try_out(
                *(_ASKED, _assistant(None, "quoll"), _result("quoll"), _THANKED),
                shown=["zebu quoll llouq tapir"],
            ),
        ],
        [
            Adaptation("messages of one role are merged, so that roles alternate", alternate_roles),
            Adaptation("messages of one turn are merged, so that turns alternate", alternate_turns),
        ],
    ),
    _Rule(
        [_try_out(_ASKED, _assistant(""), _THANKED)],
        [Adaptation("empty messages of the assistant get a space", fill_empty_answers)],
    ),
    _Rule(
        [
            _try_out({**_SYSTEM, "content": _PARTS}, _ASKED, shown=["civet gaur", "zebu"]),
            _try_out(_ASKED, {**_ANSWERED, "content": _PARTS}, _THANKED, shown=["zebu civet gaur tapir"]),
        ],
        [
            Adaptation("the parts of a system message are joined", join_parts_of(SYSTEM_ROLES)),
            Adaptation(
                "the parts of a message are joined, unless it is the user's",
                join_parts_of((*SYSTEM_ROLES, "assistant")),
            ),
        ],
    ),
)
"""In the order of application. The last one is tried first: each is tried with those that follow it."""


def find_rules(render: TryRender, named_roles: Iterable[str], *, knows_tools: bool) -> TemplateRules:
    """Return the rules of a template.

    ``named_roles`` are texts in its source that may be roles. A template with ``knows_tools`` uses the list
    of tools; for a model of any other, the results of calls are text of the user.
    """
    if not _passes(render, _PLAIN, ()):
        return TemplateRules()
    found: tuple[Adaptation, ...] = ()
    for rule in reversed(_RULES):
        found = _best(render, rule, [found, *((each, *found) for each in rule.adaptations)])
    if not knows_tools:
        found = tuple(_BOTH_AS_TEXT if each is _CALLS_AS_TEXT else each for each in found)
    roles = {*COMMON_ROLES}
    roles |= {role for role in named_roles if _passes(render, _role_try_out(role, "gaur"), found)}
    roles |= {role for role in OWN_ROLES if _passes(render, _role_try_out(role, f"{role} gaur"), found)}
    return TemplateRules(found, frozenset(roles))


def _best(
    render: TryRender, rule: _Rule, choices: Sequence[tuple[Adaptation, ...]]
) -> tuple[Adaptation, ...]:
    """Return the first of the choices with which most conversations pass."""
    best, most = choices[0], -1
    for choice in choices:
        count = sum(_passes(render, try_out, choice) for try_out in rule.try_outs)
        if count > most:
            best, most = choice, count
        if most == len(rule.try_outs):
            break
    return best


def _role_try_out(role: str, shown: str) -> _TryOut:
    return _try_out(_ASKED, {"role": role, "content": "gaur"}, _THANKED, shown=[f"zebu {shown} tapir"])


def _passes(render: TryRender, try_out: _TryOut, adaptations: tuple[Adaptation, ...]) -> bool:
    text = render(TemplateRules(adaptations).adapt(try_out.messages))
    return all(_shows(text, words.split()) for words in try_out.shown)


def _shows(text: str, words: Sequence[str]) -> bool:
    position = 0
    for word in words:
        position = text.find(word, position) + len(word)
        if position < len(word):
            return False
    return True
