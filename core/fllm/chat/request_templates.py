"""Templates that requests bring: rendered in a process of their own, which is killed when it takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from msgspec import Struct

from fllm.chat.compiled_template import ContentFormat, one_line
from fllm.chat.template import ChatTemplate
from fllm.errors import ConfigError, RequestError
from fllm.sandbox import ResourceLimits, Worker

PARAM = "chat_template"
MAX_TEMPLATE_CHARACTERS = 256 * 1024
"""Of a template; the longest of any model have 20,000."""
RENDER_LIMITS = ResourceLimits(
    subject="the chat template",
    doing="rendering",
    cpu_seconds=1.5,
    wall_seconds=2.0,
    memory=512 << 20,
    output=8 << 20,  # more than a million tokens
    files=False,
)
IMPORTED_LATE = ("encodings.unicode_escape", "jinja2.constants", "jinja2.debug", "pprint", "textwrap")
"""By Jinja when it is used; no file can be opened then."""
KEPT = 8
"""Compiled templates that are kept: whoever brings one usually brings it again."""


class TemplateSettings(Struct, frozen=True):
    """What a template is given by the server, whatever a request says."""

    special_tokens: Mapping[str, str]
    content_format: ContentFormat


class Conversation(Struct, frozen=True):
    """A piece of work: a template, and what `ChatTemplate.render` takes."""

    source: str
    messages: Sequence[Mapping[str, Any]]
    how: Mapping[str, Any]


class RequestTemplates:
    """One process for all of them, started when the first one comes, and one template at a time in it."""

    def __init__(self, setting: TemplateSettings, limits: ResourceLimits = RENDER_LIMITS) -> None:
        self._worker: Worker[TemplateSettings, Conversation] = Worker(make_renderer, lambda: setting, limits)
        self._one_at_a_time = threading.Lock()

    def template(self, source: str) -> RequestTemplate:
        """One of them; raises `RequestError` for one that is too long to be meant."""
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise RequestError(f"a template has at most {MAX_TEMPLATE_CHARACTERS} characters", param=PARAM)
        return RequestTemplate(source, self._do)

    def stop(self) -> None:
        """End the process."""
        with self._one_at_a_time:
            self._worker.stop()

    def _do(self, work: Conversation) -> bytes:
        with self._one_at_a_time:
            return self._worker.do(work)


class RequestTemplate:
    """A `ChatTemplate`, elsewhere."""

    def __init__(self, source: str, do: Callable[[Conversation], bytes]) -> None:
        self._source = source
        self._do = do

    def render(self, messages: Sequence[Mapping[str, Any]], **how: Any) -> str:
        """What `ChatTemplate.render` gives; raises `RequestError` also where it takes too much."""
        try:
            return self._do(Conversation(self._source, messages, how)).decode()
        except RequestError as error:
            raise RequestError(error.message, param=error.param or PARAM) from error


def make_renderer(setting: TemplateSettings) -> Callable[[Conversation], bytes]:
    """What the process does."""
    for name in IMPORTED_LATE:
        import_module(name)

    @lru_cache(KEPT)
    def compiled(source: str) -> ChatTemplate:
        return ChatTemplate.compile(
            {"default": source},
            special_tokens=setting.special_tokens,
            content_format=setting.content_format,
        )

    def render(work: Conversation) -> bytes:
        try:
            return compiled(work.source).render(work.messages, **work.how).encode()
        except (RecursionError, MemoryError):
            raise
        except ConfigError as error:
            raise RequestError(error.message, param=PARAM) from None
        except RequestError as error:
            # What the template does with messages that are well-formed is not the messages' fault.
            raise RequestError(
                error.message, param=PARAM if error.param == "messages" else error.param
            ) from None
        except Exception as error:  # noqa: BLE001  a stranger's template may raise whatever Python does
            raise RequestError(f"the chat template fails: {one_line(error)}", param=PARAM) from None

    return render
