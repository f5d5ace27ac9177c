"""The log of all our processes: one line for each record, for people or for machines."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

LogFormat = Literal["console", "json"]

REQUEST_ID: ContextVar[str] = ContextVar("fllm.request_id", default="")
"""The request that is being answered here: its id stands in every line that is logged meanwhile."""

FIELDS = "fields"
"""``log.info("...", extra={FIELDS: {"status": 200}})``: what a line in JSON has beside its message."""

INDENT = "    "
"""Before each line of a traceback, so that no text in it can look like a line of the log."""


def configure(level: int, log_format: LogFormat, *, anew: bool = False) -> None:
    """Log to stderr what is at least as severe; warnings of Python, too.

    Where somebody has configured the log already, theirs is kept, unless ``anew``.
    """
    handler = logging.StreamHandler()
    handler.addFilter(_with_request_id)
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=anew)
    logging.captureWarnings(True)


def configured_format() -> LogFormat:
    """What `configure` was told, for another process that is to do the same."""
    handlers = logging.getLogger().handlers
    return "json" if any(isinstance(each.formatter, JsonFormatter) for each in handlers) else "console"


class ConsoleFormatter(logging.Formatter):
    """``12:30:59 INFO fllm.api [the request's id]: the message``, and tracebacks below it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the message."""
        about = f" [{request_id}]" if (request_id := _request_id(record)) else ""
        head = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname} {record.name}{about}"
        line = f"{head}: {escaped(_message(record))}"
        return "\n".join([line, *(INDENT + escaped(each) for each in _traceback(self, record).splitlines())])


class JsonFormatter(logging.Formatter):
    """An object in a line: ``ts``, ``level``, ``logger``, ``message``, and what else there is."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; the traceback is in ``exception``."""
        line: dict[str, Any] = {
            "ts": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if request_id := _request_id(record):
            line["request_id"] = request_id
        line |= getattr(record, FIELDS, {})
        if traceback := _traceback(self, record):
            line["exception"] = traceback
        return _json(line)


def escaped(text: str) -> str:
    """The text with all that is no visible character escaped: it can neither end a line nor move a cursor."""
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() else ascii(each)[1:-1] for each in text])


def _with_request_id(record: logging.LogRecord) -> bool:
    """Asked where the record is made, which need not be where it is written."""
    if not _request_id(record):
        record.request_id = REQUEST_ID.get()
    return True


def _message(record: logging.LogRecord) -> str:
    return record.getMessage().rstrip("\n")  # warnings end with one


def _request_id(record: logging.LogRecord) -> str:
    return getattr(record, "request_id", "")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [record.exc_text or "", formatter.formatStack(record.stack_info) if record.stack_info else ""]
    if record.exc_info and not record.exc_text:
        parts[0] = formatter.formatException(record.exc_info)
    return "\n".join([part for part in parts if part])


def _timestamp(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(line: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=str).decode()
    except UnicodeEncodeError:  # half a character, which JSON in UTF-8 can't have
        plain = {name: escaped(value) if isinstance(value, str) else value for name, value in line.items()}
        return msgspec.json.encode(plain, enc_hook=str).decode()
