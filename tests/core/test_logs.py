"""What a line of the log looks like, whatever a client sent."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from typing import Any

import pytest

from fllm.logs import FIELDS, REQUEST_ID, ConsoleFormatter, JsonFormatter, escaped, escaped_json

FORGED = "no such model: x\n12:00:00 INFO fllm.api: all is well\x1b[2K\u2028"


def a_record(message: str, *arguments: object, error: BaseException | None = None, **extra: Any) -> Any:
    exc_info = (type(error), error, None) if error else None
    record = logging.LogRecord("fllm.api", logging.ERROR, "f.py", 1, message, arguments, exc_info)
    record.created = 1767225600.25
    vars(record).update(extra)
    return record


def in_json(**record: Any) -> dict[str, Any]:
    text = JsonFormatter().format(a_record(**record))
    assert text.isprintable()
    line: dict[str, Any] = json.loads(text)
    return line


def test_the_console_has_one_line_for_a_record() -> None:
    line = ConsoleFormatter().format(a_record("%s failed", "POST /v1", request_id="abc"))
    assert re.fullmatch(r"\d\d:\d\d:\d\d ERROR fllm\.api \[abc\]: POST /v1 failed", line)


def test_nothing_that_a_client_sends_begins_a_line_or_moves_the_cursor() -> None:
    text = ConsoleFormatter().format(a_record("%s", FORGED, error=ValueError(FORGED)))
    first, *traceback = text.splitlines()
    assert first.endswith(r"x\n12:00:00 INFO fllm.api: all is well\x1b[2K\u2028")
    assert traceback
    assert all(line.startswith("    ") and line.isprintable() for line in traceback)


def test_what_can_be_seen_is_not_escaped() -> None:
    assert escaped("Grüße, 世界 🦆") == "Grüße, 世界 🦆"
    assert escaped("a\tb\x7f\ud800\u202e") == r"a\tb\x7f\ud800\u202e"


def test_json_has_the_time_in_utc_the_level_the_logger_and_the_message() -> None:
    assert in_json(message="it broke", request_id="abc") == {
        "ts": "2026-01-01T00:00:00.250Z",
        "level": "error",
        "logger": "fllm.api",
        "message": "it broke",
        "request_id": "abc",
    }


def test_json_has_fields_and_the_traceback_in_the_same_line() -> None:
    line = in_json(message="failed", error=ValueError(FORGED), **{FIELDS: {"status": 500, "at": 1.5}})
    assert (line["status"], line["at"]) == (500, 1.5)
    assert line["exception"] == f"ValueError: {FORGED}"
    assert "request_id" not in line


def test_json_escapes_what_it_need_not() -> None:
    odd = "\u2028\u2029\x85\x9b2J\x7f\u202e\U000e0041"
    assert in_json(message=odd, **{FIELDS: {"path": odd}}) | {"ts": ""} == {
        "ts": "",
        "level": "error",
        "logger": "fllm.api",
        "message": odd,
        "path": odd,
    }
    assert escaped_json('"Grüße 🦆\u2028\U000e0041"') == r'"Grüße 🦆\u2028\udb40\udc41"'


def test_json_survives_half_a_character_and_values_of_any_type() -> None:
    line = in_json(message="\ud800", **{FIELDS: {"path": "/\ud800", "what": object}})
    assert (line["message"], line["path"]) == (r"\ud800", r"/\ud800")


PROGRAM = """
import logging, sys, warnings
from fllm.logs import REQUEST_ID, configure, configured_format
configure(logging.INFO, sys.argv[1])
assert configured_format() == sys.argv[1]
REQUEST_ID.set("from-afar")
logging.getLogger("uvicorn.error").error("it %s", "broke")
logging.getLogger("fllm").debug("not this")
warnings.warn("old", DeprecationWarning)
configure(logging.WARNING, "console", force=True)
logging.getLogger("fllm").info("nor this")
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_all_loggers_and_warnings_write_it(log_format: str) -> None:
    command = [sys.executable, "-W", "always", "-c", PROGRAM, log_format]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    broke, old = ran.stderr.splitlines()
    if log_format == "json":
        assert json.loads(broke)["logger"] == "uvicorn.error"
        assert (json.loads(broke)["message"], json.loads(broke)["request_id"]) == ("it broke", "from-afar")
        assert json.loads(old)["logger"] == "py.warnings"
    else:
        assert broke.endswith("ERROR uvicorn.error [from-afar]: it broke")
        assert "WARNING py.warnings" in old
    assert "DeprecationWarning: old" in old
    assert REQUEST_ID.get() == ""
