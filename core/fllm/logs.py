"""Log formats of all processes: one line per record, for people or as JSON."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

LogFormat = Literal["console", "json"]

REQUEST_ID: ContextVar[str] = ContextVar("fllm.request_id", default="")
"""Id of the request that is processed in this context; it is added to every log line."""

FIELDS = "fields"
"""``log.info("...", extra={FIELDS: {"status": 200}})`` adds fields to a line in JSON."""

INDENT = "    "
"""Indentation of tracebacks, so that no text in them can look like a log line."""


def configure(level: int, log_format: LogFormat, *, force: bool = False) -> None:
    """Log records of at least ``level`` and Python's warnings to stderr.

    An existing configuration of the root logger is kept unless ``force``.
    """
    handler = logging.StreamHandler()
    handler.addFilter(_with_request_id)
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=force)
    logging.captureWarnings(True)


def configured_format() -> LogFormat:
    """Return the format that `configure` set, to pass it to another process."""
    handlers = logging.getLogger().handlers
    return "json" if any(isinstance(each.formatter, JsonFormatter) for each in handlers) else "console"


class ConsoleFormatter(logging.Formatter):
    """Formats ``12:30:59 INFO fllm.api [request id]: message``, with tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, whatever the message contains."""
        about = f" [{request_id}]" if (request_id := _request_id(record)) else ""
        head = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname} {record.name}{about}"
        line = f"{head}: {escaped(_message(record))}"
        return "\n".join([line, *(INDENT + escaped(each) for each in _traceback(self, record).splitlines())])


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line: ``ts``, ``level``, ``logger``, ``message`` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; the traceback is in ``exception``."""
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
    """Return the text with invisible characters escaped, so that it cannot end a line or move a cursor."""
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() else ascii(each)[1:-1] for each in text])


def escaped_json(text: str) -> str:
    """Return a JSON text of one line with its invisible characters escaped, which JSON itself allows."""
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() else json.dumps(each)[1:-1] for each in text])


def _with_request_id(record: logging.LogRecord) -> bool:
    """Add the request id where the record is created, which may be another thread than the handler's."""
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
    """Return a time in RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(line: dict[str, Any]) -> str:
    try:
        return escaped_json(msgspec.json.encode(line, enc_hook=str).decode())
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot encode
        plain = {name: escaped(value) if isinstance(value, str) else value for name, value in line.items()}
        return escaped_json(msgspec.json.encode(plain, enc_hook=str).decode())
