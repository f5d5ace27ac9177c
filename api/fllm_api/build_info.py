"""Version and commit of the installed furiosa-llm distribution."""

from __future__ import annotations

from functools import cache
from importlib.metadata import Distribution, distribution
from pathlib import Path

import msgspec

from fllm_api.protocol.version import BuildInfo

DISTRIBUTION = "furiosa-llm-server"
"""Name of the distribution on the package index. The import packages have other names."""


@cache
def build() -> BuildInfo:
    """Return the build, read from the metadata of the installed distribution."""
    installed = distribution(DISTRIBUTION)
    version = installed.version
    stage = "dev" if "dev" in version or "+" in version else "release"
    return BuildInfo(version=version, git_hash=_git_hash(installed), stage=stage)


class _VcsInfo(msgspec.Struct, frozen=True):
    commit_id: str = ""


class _DirectUrl(msgspec.Struct, frozen=True):
    """Contents of ``direct_url.json`` (PEP 610): the source that pip installed from."""

    url: str = ""
    vcs_info: _VcsInfo = _VcsInfo()


def _git_hash(installed: Distribution) -> str:
    """Return the installed commit, or the HEAD of an editable install; ``unknown`` for a release."""
    text = installed.read_text("direct_url.json")
    if text is None:
        return "unknown"
    origin = msgspec.json.decode(text, type=_DirectUrl)
    if origin.vcs_info.commit_id:
        return origin.vcs_info.commit_id
    return _head_commit(Path(origin.url.removeprefix("file://")) / ".git") or "unknown"


def _head_commit(git: Path) -> str | None:
    try:
        head = (git / "HEAD").read_text().strip()
        reference = head.removeprefix("ref: ")
        return head if reference == head else (git / reference).read_text().strip()
    except OSError:
        return None
