"""Chat templates from requests, rendered in a child process with limits on time and memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from msgspec import Struct

from fllm.chat.compiled_template import ContentFormat, one_line
from fllm.chat.message_escaping import ControlTokens
from fllm.chat.reasoning_controls import ReasoningControls, controls_of_source
from fllm.chat.template import ChatTemplate
from fllm.containment import mapped
from fllm.errors import ConfigError, RequestError
from fllm.sandbox import ResourceLimits, Worker

PARAM = "chat_template"
MAX_TEMPLATE_CHARACTERS = 256 * 1024
"""Maximum length of a template. The longest templates of published models have 20,000 characters."""
RENDER_LIMITS = ResourceLimits(
    subject="the chat template",
    activity="rendering",
    cpu_seconds=1.5,
    wall_seconds=2.0,
    memory=512 << 20,
    output=8 << 20,  # more than a million tokens
    allow_files=False,
)
LAZY_IMPORTS = (
    *("html", "jinja2.constants", "jinja2.debug", "pprint", "textwrap", "unicodedata"),
    *(f"encodings.{name}" for name in ("ascii", "idna", "latin_1", "punycode", "unicode_escape")),
    *(f"encodings.utf_{name}" for name in ("7", "8_sig", "16", "16_be", "16_le", "32", "32_be", "32_le")),
)
"""Modules that Jinja and strings import on first use, when the child can't open files any more."""
MAX_CACHED_TEMPLATES = 8
"""Compiled templates kept by the child, since a client usually sends the same template again."""


class TemplateSettings(Struct, frozen=True):
    """The server's settings for templates from requests."""

    special_tokens: Mapping[str, str]
    content_format: ContentFormat
    control_tokens: ControlTokens | None = None


class RenderJob(Struct, frozen=True):
    """A job for the child: a template and the arguments of `ChatTemplate.render`."""

    source: str
    messages: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]


class RequestTemplates:
    """Renders templates one at a time in one child process, which starts with the first template."""

    def __init__(self, settings: TemplateSettings, limits: ResourceLimits = RENDER_LIMITS) -> None:
        self._worker: Worker[TemplateSettings, RenderJob] = Worker(make_renderer, lambda: settings, limits)
        self._lock = threading.Lock()

    def template(self, source: str) -> RequestTemplate:
        """Return a template that renders in the child; raise `RequestError` if the source is too long."""
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise RequestError(f"a template has at most {MAX_TEMPLATE_CHARACTERS} characters", param=PARAM)
        return RequestTemplate(source, self._run)

    def stop(self) -> None:
        """Stop the child process."""
        with self._lock:
            self._worker.stop()

    def _run(self, job: RenderJob) -> bytes:
        with self._lock:
            return self._worker.run(job)


class RequestTemplate:
    """Renders like a `ChatTemplate`, in the child process."""

    def __init__(self, source: str, run: Callable[[RenderJob], bytes]) -> None:
        self._source = source
        self._run = run

    @property
    def reasoning_controls(self) -> ReasoningControls:
        """The variables that turn reasoning on and off."""
        return controls_of_source(self._source)

    def render(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Render as `ChatTemplate.render` does; raise `RequestError` also if it exceeds the limits."""
        try:
            return self._run(RenderJob(self._source, messages, options)).decode()
        except RequestError as error:
            raise RequestError(error.message, param=error.param or PARAM) from error


PASSING = (RecursionError, MemoryError, ConfigError, RequestError)
"""Errors of rendering that are handled separately."""


def make_renderer(settings: TemplateSettings) -> Callable[[RenderJob], bytes]:
    """Return the function that the child process runs for each job."""
    for name in LAZY_IMPORTS:
        import_module(name)

    @lru_cache(MAX_CACHED_TEMPLATES)
    def compiled(source: str) -> ChatTemplate:
        return ChatTemplate.compile(
            {"default": source},
            special_tokens=settings.special_tokens,
            content_format=settings.content_format,
            control_tokens=settings.control_tokens,
        )

    def render(job: RenderJob) -> bytes:
        try:
            with mapped(_template_failed, passing=PASSING):
                return compiled(job.source).render(job.messages, **job.options).encode()
        except ConfigError as error:
            raise RequestError(error.message, param=PARAM) from None
        except RequestError as error:
            # Attribute an error of the template to the template, not to well-formed messages.
            raise RequestError(
                error.message, param=PARAM if error.param == "messages" else error.param
            ) from None

    return render


def _template_failed(error: BaseException) -> RequestError:
    if isinstance(error, OSError | ImportError):  # such as a rare encoding; the message holds a path
        return RequestError(
            "the chat template fails: it needs a module of Python that templates can't use", param=PARAM
        )
    return RequestError(f"the chat template fails: {one_line(error)}", param=PARAM)
