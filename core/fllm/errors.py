"""Every error that crosses a room's door, in one tree.

::

    FllmError
    ├── UserError              whoever typed the command can mend it: one line, exit status 2
    │   ├── ConfigError        an option has a value it can't have
    │   ├── ModelError         MODEL is missing, unreadable or of an unknown kind
    │   └── PluginError        a plugin can't be used as asked
    │       ├── UnknownName    nothing is registered under that name
    │       └── NameConflict   two distributions offer the same name
    ├── RequestError           the client can mend it: 400, with OpenAI's `param` and `code`
    │   └── ContextTooLong     prompt and answer don't fit into the context
    └── BackendError           the engine's fault: 500
        └── BackendUnavailable the engine is not there (starting, dead, draining): 503
            └── BackendLost    and it does not come back by itself: start another
"""

from __future__ import annotations


class FllmError(Exception):
    """The root: catch this to catch all of ours."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UserError(FllmError):
    """Whoever started the server can mend it; the message says how."""


class ConfigError(UserError):
    """An option has a value that it can't have."""


class ModelError(UserError):
    """MODEL is missing, unreadable, or of a kind nothing here can load."""


class PluginError(UserError):
    """A plugin can't be used as asked."""


class UnknownName(PluginError):
    """Nothing is registered under the name that was asked for."""


class NameConflict(PluginError):
    """Two distributions offer the same name, so neither is chosen."""


class RequestError(FllmError):
    """The client's request can't be served as it stands.

    ``param`` is the JSON path of the offending field (``messages[0].role``), ``code`` a word for programs.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ContextTooLong(RequestError):
    """The prompt, or the prompt and the requested maximum, exceed the model's context."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param, code="context_length_exceeded")


class BackendError(FllmError):
    """The engine failed while it worked on a request."""


class BackendUnavailable(BackendError):
    """The engine is not there: it died, is being started again, or is stopping."""


class BackendLost(BackendUnavailable):
    """The engine hangs or has broken, and does not come back: who holds it in a process starts another."""


def format_error(error: BaseException) -> str:
    """Return an error as one line: its class and message; of a `PluginError` the message alone."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}".rstrip(": ")
