"""Check what is executed of a model, in a child process with limits on time and memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from msgspec import Struct

from fllm.chat import ChatTemplate, ContentFormat
from fllm.chat.compiled_template import TemplateTooComplex
from fllm.concurrency.thread_watchdog import ThreadWatchdog
from fllm.errors import ModelError, RequestError, UserError
from fllm.sandbox import ResourceLimits, Worker
from fllm.tokenizer import Tokenizer

RENDER_SECONDS = 2.0
"""Maximum CPU time of rendering one conversation. Ordinary templates take 3 µs per message."""
RENDER_MEMORY = 512 << 20
"""Maximum growth of memory while one conversation is rendered, in bytes."""
CHECK_LIMITS = ResourceLimits(
    subject="it",
    activity="loading",
    cpu_seconds=15.0,  # the largest tokenizers take two
    wall_seconds=90.0,
    memory=4 << 30,
    output=1024,
)
PROBE_TEXTS = tuple(part * 2000 for part in ("a", " ", "1", "\n", "!", "é", "a ", "a1 ", "aA!\n"))
"""Texts whose repetitions make regular expressions backtrack."""


@cache
def render_watchdog() -> ThreadWatchdog:
    """Return the watchdog with the limits of rendering the model's own template."""
    return ThreadWatchdog(cpu_seconds=RENDER_SECONDS, memory=RENDER_MEMORY)


class TokenizerCheck(Struct, frozen=True):
    """A job for the child: load a tokenizer and encode some texts."""

    directory: str


class TemplateCheck(Struct, frozen=True):
    """A job for the child: compile chat templates and render simple conversations."""

    templates: Mapping[str, str]
    content_format: ContentFormat


class ModelCheck:
    """Runs the checks one at a time in a child process.

    Errors that do not come from a limit are ignored: they appear again, with their own message, when this
    process loads what was checked.
    """

    def __init__(self, limits: ResourceLimits = CHECK_LIMITS) -> None:
        self._worker: Worker[None, TokenizerCheck | TemplateCheck] = Worker(
            make_checker, lambda: None, limits
        )
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the child, so that the first check does not wait for it."""
        with self._lock:
            self._worker.start()

    def stop(self) -> None:
        """Kill the child."""
        self._worker.stop()

    def check_tokenizer(self, directory: Path) -> None:
        """Raise `ModelError` if the tokenizer of a model exceeds the limits."""
        self._run(TokenizerCheck(str(directory)), f"the tokenizer {directory / 'tokenizer.json'}")

    def check_templates(
        self, templates: Mapping[str, str], content_format: ContentFormat, where: str
    ) -> None:
        """Raise `ModelError` if the chat templates exceed the limits. ``where`` names their origin."""
        self._run(
            TemplateCheck(dict(templates), content_format), where, "; pass another with --chat-template FILE"
        )

    def _run(self, job: TokenizerCheck | TemplateCheck, where: str, advice: str = "") -> None:
        try:
            with self._lock:
                self._worker.run(job)
        except RequestError as error:
            raise ModelError(f"{where} can't be used: {error.message}{advice}") from None


def make_checker(_: None) -> Callable[[TokenizerCheck | TemplateCheck], bytes]:
    """Return the function that the child process runs for each job."""
    import tokenizers  # noqa: F401  (before the limits of memory apply)

    watchdog = render_watchdog()

    def check(job: TokenizerCheck | TemplateCheck) -> bytes:
        try:
            if isinstance(job, TokenizerCheck):
                _check_tokenizer(Path(job.directory))
            else:
                ChatTemplate.compile(
                    job.templates, special_tokens={}, content_format=job.content_format, watchdog=watchdog
                )
        except TemplateTooComplex as error:
            raise RequestError(error.message) from None
        except UserError:
            pass  # the process that loads the files reports it
        return b""

    return check


def _check_tokenizer(directory: Path) -> None:
    tokenizer = Tokenizer.load(directory)
    for text in PROBE_TEXTS:
        try:
            tokenizer.encode(text, add_special_tokens=True)
        except RequestError as error:
            # Some vocabularies have no token for such a text. A limit of backtracking is a panic instead.
            if not isinstance(error.__cause__, Exception) or isinstance(error.__cause__, MemoryError):
                raise
    tokenizer.min_token_count("")
