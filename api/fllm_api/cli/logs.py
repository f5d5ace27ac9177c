"""Logging to stderr: stdout is for answers and for the line that says where the server is."""

from __future__ import annotations

import logging

CHATTY = ("httpx", "httpcore", "uvicorn.error", "uvicorn.access", "huggingface_hub")
"""Loggers of libraries that say at ``info`` what belongs to ``debug``."""


def configure_logging(level: str) -> None:
    """Log what is at least as severe."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    for name in CHATTY if level == "info" else ():
        logging.getLogger(name).setLevel(logging.WARNING)
