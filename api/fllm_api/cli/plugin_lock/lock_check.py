"""``--locked-plugins``: compare the third-party plugins with a lock, before any of them is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fllm.config import PluginConfig
from fllm.errors import ConfigErrors, PluginError
from fllm.plugins.discovery import Candidate, normalize_name
from fllm_api.cli.plugin_lock.distribution_files import file_digest
from fllm_api.cli.plugin_lock.lock_file import (
    LockedDistribution,
    LockedFile,
    lock_distribution,
    read_lock,
    third_party,
)


def check_lock(file: Path, config: PluginConfig, option: str = "--locked-plugins") -> None:
    """Raise `ConfigErrors` with one line for each plugin that is not as the lock says."""
    lock = read_lock(file, option)
    plugins = third_party(config)
    locked = {normalize_name(each.name): each for each in lock.distributions}
    locked_files = {each.name: each for each in lock.files}
    problems = [
        *_distribution_problems(locked, plugins),
        *_file_problems(locked_files, [each for each in plugins if each.is_file]),
    ]
    if problems:
        raise ConfigErrors([f"{option}: {problem}" for problem in problems])


def _distribution_problems(
    locked: Mapping[str, LockedDistribution], plugins: list[Candidate]
) -> Iterator[str]:
    found: dict[str, list[Candidate]] = {}
    for each in plugins:
        if not each.is_file:
            found.setdefault(normalize_name(each.distribution), []).append(each)
    for key, candidates in found.items():
        names = [each.name for each in candidates]
        title = f"plugin {', '.join(names)} ({candidates[0].distribution} {candidates[0].version})"
        if (expected := locked.get(key)) is None:
            yield f"{title} was added: it is not in the lock"
        elif candidates[0].version != expected.version:
            yield f"{title} has another version: the lock has {expected.version}"
        else:
            try:
                reason = _difference(expected, lock_distribution(candidates[0].distribution, names))
            except PluginError as error:
                reason = error.message
            if reason:
                yield f"{title} was changed: {reason}"
    for key in locked.keys() - found.keys():
        expected = locked[key]
        yield f"plugin {', '.join(expected.plugins)} ({expected.name} {expected.version}) is missing"


def _difference(expected: LockedDistribution, found: LockedDistribution) -> str | None:
    if expected.editable != found.editable:
        return f"it is {'' if found.editable else 'not '}an editable install"
    for path in sorted(expected.files.keys() | found.files.keys()):
        if path not in found.files:
            return f"{path} is missing"
        if path not in expected.files:
            return f"{path} was added"
        if expected.files[path] != found.files[path]:
            return f"{path} has another digest"
    return None


def _file_problems(locked: Mapping[str, LockedFile], files: list[Candidate]) -> Iterator[str]:
    for each in files:
        title = f"plugin {each.name} ({each.source})"
        if (expected := locked.get(each.name)) is None:
            yield f"{title} was added: it is not in the lock"
            continue
        try:
            if file_digest(Path(each.source)) != expected.digest:
                yield f"{title} was changed: it has another digest"
        except PluginError as error:
            yield f"{title}: {error.message}"
    for name in locked.keys() - {each.name for each in files}:
        yield f"plugin {name} (--plugin {name}.py) is missing"
