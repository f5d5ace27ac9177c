"""What a scraper accepts, said so that our names reach it as they are."""

from __future__ import annotations

OPENMETRICS = "application/openmetrics-text"


def unescaped(accept: str) -> str:
    """The header ``Accept``, asking that no name be escaped: each of ours is legal in every version.

    Where it is not asked for that, prometheus_client 0.26 writes the colon of our samples as an underscore.
    """
    return ",".join(_unescaped(each) for each in accept.split(",")) if accept else ""


def _unescaped(accepted: str) -> str:
    kind, *parameters = (part.strip() for part in accepted.split(";"))
    kept = [part for part in parameters if not part.startswith("escaping=")]
    if kind == OPENMETRICS and not any(part.startswith("version=") for part in kept):
        kept.append("version=1.0.0")
    return ";".join([kind, *kept, "escaping=allow-utf-8"])
