"""Rewrite the ``Accept`` header of a scraper so that metric names are not escaped."""

from __future__ import annotations

OPENMETRICS = "application/openmetrics-text"


def unescaped(accept: str) -> str:
    """Return the header with a request for unescaped names, which are valid in every version of the format.

    Without it, prometheus_client 0.26 replaces the colon in our sample names by an underscore.
    """
    return ",".join(_unescaped(each) for each in accept.split(",")) if accept else ""


def _unescaped(accepted: str) -> str:
    kind, *parameters = (part.strip() for part in accepted.split(";"))
    kept = [part for part in parameters if not part.startswith("escaping=")]
    if kind == OPENMETRICS and not any(part.startswith("version=") for part in kept):
        kept.append("version=1.0.0")
    return ";".join([kind, *kept, "escaping=allow-utf-8"])
