"""The tree of all errors that cross a module boundary.

::

    FllmError
    ├── UserError              the operator can fix it: one line, exit status 2
    │   ├── ConfigError        an option has an invalid value
    │   ├── ConfigErrors       several have: one line each
    │   ├── ModelError         MODEL is missing, unreadable or of an unknown kind
    │   └── PluginError        a plugin cannot be used as requested
    │       ├── UnknownName    no entry is registered under that name
    │       └── NameConflict   two distributions offer the same name
    ├── RequestError           the client can fix it: 400, with OpenAI's `param` and `code`
    │   ├── ContextTooLong     prompt and output do not fit into the context
    │   └── ModelNotFound      the request names an adapter that is not loaded: 404
    └── BackendError           the engine failed: 500
        └── BackendUnavailable the engine is not available (starting, dead, draining): 503
            └── BackendLost    it does not recover by itself: start another
"""

from __future__ import annotations

import errno
from collections.abc import Sequence


class FllmError(Exception):
    """Root of the tree: catch this to catch all errors of furiosa-llm."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UserError(FllmError):
    """An error that the operator can fix; the message says how."""


class ConfigError(UserError):
    """An option has an invalid value."""


class ConfigErrors(UserError):
    """Several options have invalid values; ``messages`` has one for each."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)


class ModelError(UserError):
    """MODEL is missing, unreadable, or of a kind that no backend can load."""


class PluginError(UserError):
    """A plugin cannot be used as requested."""


class UnknownName(PluginError):
    """No entry is registered under the requested name."""


class NameConflict(PluginError):
    """Two distributions offer the requested name, so neither is chosen."""


class RequestError(FllmError):
    """The request of a client is invalid, or requires something that is not supported.

    ``param`` is the JSON path of the invalid field (``messages[0].role``); ``code`` is for programs.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ContextTooLong(RequestError):
    """The prompt, or the prompt and the requested maximum, exceed the model's context."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param, code="context_length_exceeded")

    @classmethod
    def for_prompt(cls, max_model_len: int, length: str, *, param: str | None = None) -> ContextTooLong:
        """Return the error for a prompt; ``length`` is a clause about it, such as "the prompt has 9 tokens".

        Clients recognise the error by these phrases (LiteLLM, LangChain, opencode, Cline). Then they shorten
        the conversation or choose a model with a longer context.
        """
        return cls(
            f"The prompt is too long: this model's maximum context length is {max_model_len} tokens, and "
            f"{length}. Please reduce the length of the {param or 'prompt'}.",
            param=param,
        )


class ModelNotFound(RequestError):
    """The request names a model that this server does not have, or no longer has: 404."""

    def __init__(self, message: str, *, param: str | None = "model") -> None:
        super().__init__(message, param=param, code="model_not_found")


class BackendError(FllmError):
    """The engine failed while it processed a request."""


class BackendUnavailable(BackendError):
    """The engine is not available: it died, is being restarted, or is stopping."""


class BackendLost(BackendUnavailable):
    """The engine hangs or is broken and does not recover. The backend ``process`` then starts another."""


_EXHAUSTED = {
    errno.ENOMEM: "memory",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.EAGAIN: "processes and threads",
}
_MESSAGES = {
    "can't start new thread": "processes and threads",  # Python's RuntimeError
    "failed to map segment": "memory",  # the dynamic linker's, in an ImportError
    "cannot allocate memory": "memory",
}


def exhausted_resource(error: BaseException) -> str | None:
    """Return which limit of the system an error or one of its causes reports, as one line, or ``None``."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            resource: str | None = "memory"
        elif isinstance(cause, OSError) and cause.errno in _EXHAUSTED:
            resource = _EXHAUSTED[cause.errno]
        else:
            text = str(cause).lower()
            resource = next((what for message, what in _MESSAGES.items() if message in text), None)
        if resource is not None:
            return f"a limit of the system is too low for this server: {resource} ({format_error(cause)})"
        cause = cause.__cause__ or cause.__context__
    return None


def format_error(error: BaseException) -> str:
    """Return an error as one line: its class and message; of a `PluginError` the message alone."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}".rstrip(": ")
