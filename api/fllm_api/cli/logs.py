"""Logging to stderr: stdout is for answers and for the line that says where the server is."""

from __future__ import annotations

import logging

from fllm.logs import LogFormat, configure

VERBOSE_LOGGERS = ("httpx", "httpcore", "uvicorn.error", "uvicorn.access", "huggingface_hub")
"""Loggers of libraries that say at ``info`` what belongs to ``debug``."""


def configure_logging(level: str, log_format: LogFormat = "console") -> None:
    """Log what is at least as severe."""
    configure(logging.getLevelNamesMapping()[level.upper()], log_format)
    for name in VERBOSE_LOGGERS if level == "info" else ():
        logging.getLogger(name).setLevel(logging.WARNING)
