"""Configure logging to stderr. Stdout is for command output and the server's ready line."""

from __future__ import annotations

import logging

from fllm.logs import LogFormat, configure

VERBOSE_LOGGERS = ("httpx", "httpcore", "uvicorn.error", "uvicorn.access", "huggingface_hub")
"""Loggers of libraries whose ``info`` messages are debug output."""


def configure_logging(level: str, log_format: LogFormat = "console") -> None:
    """Log messages of at least ``level`` to stderr."""
    configure(logging.getLevelNamesMapping()[level.upper()], log_format)
    for name in VERBOSE_LOGGERS if level == "info" else ():
        logging.getLogger(name).setLevel(logging.WARNING)
