"""What pip and uv print: the plan of a dry run, and why they fail."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

_UV_CHANGE = re.compile(
    r"^ \+ (?P<name>[\w.-]+)(?: @ (?P<url>\S+)|==(?P<version>\S+)(?: \(from (?P<old>\S+)\))?)"
)
_DEPENDS = re.compile(r"^\s+(\S.* depends on .+)$", re.MULTILINE)
_KEPT = re.compile(r"^\s+The user requested \(constraint\) (.+)$", re.MULTILINE)
_UV_ERROR = re.compile(r"^(?:error|  cause|  × |  ╰─▶)[: ]*([^: ].*)", re.MULTILINE | re.DOTALL)
_NOISE = ("ResolutionImpossible", "[notice]", "Using Python")
MAX_MESSAGE = 1000
"""Characters of a program's output in a message."""


class _Metadata(Struct, frozen=True):
    name: str
    version: str


class _Vcs(Struct, frozen=True):
    vcs: str
    commit_id: str


class _Download(Struct, frozen=True):
    url: str
    vcs_info: _Vcs | None = None
    subdirectory: str | None = None


class _Change(Struct, frozen=True):
    metadata: _Metadata
    download_info: _Download
    is_direct: bool = False


class _Report(Struct, frozen=True):
    install: list[_Change]


def parse_pip_report(text: bytes) -> list[str]:
    """Return a requirement for each distribution of an installation report.

    See https://pip.pypa.io/en/stable/reference/installation-report/.
    """
    return [_requirement(each) for each in msgspec.json.decode(text, type=_Report).install]


def _requirement(change: _Change) -> str:
    name, download = change.metadata.name, change.download_info
    if not change.is_direct:
        return f"{name}=={change.metadata.version}"
    url = download.url
    if download.vcs_info is not None:
        url = f"{download.vcs_info.vcs}+{url}@{download.vcs_info.commit_id}"
    return f"{name} @ {url}" + (f"#subdirectory={download.subdirectory}" if download.subdirectory else "")


def parse_uv_plan(text: str) -> list[str]:
    """Return a requirement for each line of a dry run that says what would be installed."""
    found = []
    for line in text.splitlines():
        if match := _UV_CHANGE.match(line):
            url = match["url"] or match["old"]
            found.append(f"{match['name']} @ {url}" if url else f"{match['name']}=={match['version']}")
    return found


def explain(stdout: str, stderr: str) -> str:
    """Return in one line why a program failed: its conflicts, if it names them, or else its errors."""
    if kept := _KEPT.findall(stdout):
        needs = "; ".join(dict.fromkeys(_DEPENDS.findall(stdout)))
        return f"{needs}; but {', '.join(dict.fromkeys(kept))} stays, because this server runs with it"
    if match := _UV_ERROR.search(stderr):
        return _one_line(match[1])
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    errors = [line for line in errors if not line.startswith(_NOISE)]
    return _one_line(" ".join(errors or [stderr or stdout]) or "it failed and printed nothing")


def _one_line(text: str) -> str:
    words = "".join(each if each.isprintable() else " " for each in text).replace("cause: ", "").split()
    line = " ".join(words)
    if len(line) <= MAX_MESSAGE:
        return line
    return (
        f"{line[: MAX_MESSAGE // 4]} ... {line[-MAX_MESSAGE * 3 // 4 :]}"  # a traceback ends with the error
    )
