"""Find the cache directory, and make sure that no other user can write what the server executes from it."""

from __future__ import annotations

import errno
import grp
import logging
import os
import pwd
import stat
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from fllm.errors import ConfigError

log = logging.getLogger("fllm.cache")

ROOT = 0
SHARED_MEMORY = Path("/dev/shm")
MAX_LINKS = 40
"""Symbolic links that a path may go through, as in the kernel."""
HINT = "set FLLM_CACHE to another directory"


def writable_directory(kind: str, *, in_memory: bool = False) -> Path:
    """Return the cache's directory for ``gguf`` or ``kernels``, which only this user and root can change.

    It is created if necessary. If that fails, it is one among the temporary files; with ``in_memory`` also
    one in shared memory. Raise `OSError` if nothing can be written, and `ConfigError` if others can write to
    the cache.
    """
    try:
        return _create(configured_directory(kind))
    except OSError as error:
        failure = error
    for root in _temporary_roots(in_memory=in_memory):
        # Others may have created this name first: then it is not trusted.
        with suppress(OSError, ConfigError):
            directory = _create(root / f"furiosa-llm-{os.geteuid()}" / kind)
            reason = failure.strerror or str(failure)
            _warn_once(
                "the cache can't be written (%s): using %s, which may not last; %s", reason, directory, HINT
            )
            return directory
    raise failure


def read_only_directory(kind: str) -> Path | None:
    """Return this directory of a cache that can't be written, such as one in a container image."""
    with suppress(OSError, ConfigError):
        directory = resolve_trusted(configured_directory(kind))
        return directory if directory.is_dir() and not os.access(directory, os.W_OK) else None
    return None


def resolve_trusted(path: Path) -> Path:
    """Return an absolute path without symbolic links whose existing part only this user and root can change.

    It is checked from the root on, so that nobody can replace a part that was checked. Raise `ConfigError` if
    others can change it, and `OSError` if they can but this user can't write there.
    """
    pending, current, links, problem = [*reversed(path.parts[1:])], Path("/"), 0, ""
    while pending:
        name = pending.pop()
        child = current.parent if name == ".." else current / name
        try:
            status = child.lstat()
        except FileNotFoundError:
            pending.append(name)
            break
        problem = problem or find_problem(child, status, parent=bool(pending))
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > MAX_LINKS or not child.exists():
                raise _unusable(child, "is a symbolic link to nothing")
            target = Path(os.readlink(child))
            pending += reversed(target.parts[target.is_absolute() :])
            current = Path("/") if target.is_absolute() else current
        elif stat.S_ISDIR(status.st_mode):
            current = child
        else:
            raise _unusable(child, "is not a directory")
    if problem and not os.access(current, os.W_OK):
        raise PermissionError(errno.EACCES, problem)
    if problem:
        raise ConfigError(
            f"{problem}, and the server executes kernels of its cache: change owner or mode, "
            f"{HINT}, or set FLLM_TRUST_CACHE=1 to use it all the same"
        )
    return current.joinpath(*reversed(pending))


def find_problem_in(directory: Path) -> str:
    """Return why a directory and all in it can't be used, or ``""``. It must have no symbolic links."""
    for path, status in _walk(directory):
        if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
            return f"{str(path)!r} is not a file"
        if problem := find_problem(path, status, parent=False):
            return problem
    return ""


def find_problem(path: Path, status: os.stat_result, *, parent: bool) -> str:
    """Return why others can change a path, or ``""`` if only this user and root can.

    ``parent`` is a directory above, where others may create files if they can't rename ours.
    """
    if os.environ.get("FLLM_TRUST_CACHE", "0") not in ("", "0"):
        return ""
    if status.st_uid not in {ROOT, os.geteuid()} | (_unmapped_users() if parent else set()):
        return f"{str(path)!r} belongs to the user {status.st_uid}"
    if stat.S_ISLNK(status.st_mode) or (parent and status.st_mode & stat.S_ISVTX):
        return ""
    if status.st_mode & stat.S_IWOTH:
        return f"every user can write to {str(path)!r}"
    # The bit of the group is also the mask of an access control list.
    if status.st_mode & stat.S_IWGRP and (_has_access_list(path) or not _is_private_group(status.st_gid)):
        return f"other users can write to {str(path)!r}"
    return ""


@contextmanager
def private_files() -> Generator[None]:
    """Create files that only this user can read, whatever the umask of the process is."""
    previous = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(previous)


def configured_directory(kind: str) -> Path:
    """Return the cache's directory for a kind, which may not exist. Raise `OSError` without a home.

    The default is as the XDG Base Directory Specification says. It ignores a relative path.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    default = Path(home if os.path.isabs(home) else "~/.cache", "furiosa-llm")
    try:
        return Path(os.environ.get("FLLM_CACHE") or default, kind).expanduser().absolute()
    except RuntimeError:
        raise FileNotFoundError(errno.ENOENT, "there is no home directory") from None


def _temporary_roots(*, in_memory: bool) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield Path(tempfile.gettempdir())
    if in_memory:
        yield SHARED_MEMORY


def _create(directory: Path) -> Path:
    with private_files():
        resolve_trusted(directory).mkdir(parents=True, exist_ok=True)
    directory = resolve_trusted(directory)  # again, since others may have been faster to create it
    tempfile.TemporaryFile(dir=directory).close()  # fails if nothing can be written
    return directory


def _walk(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with suppress(FileNotFoundError):  # another process may remove its temporary files
        status = directory.lstat()
        yield directory, status
        if stat.S_ISDIR(status.st_mode):
            for path in directory.iterdir():
                yield from _walk(path)


@lru_cache(1)
def _unmapped_users() -> set[int]:
    """Return the user that stands for all unmapped ones, root included, if this is a user namespace."""
    with suppress(OSError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            return {int(Path("/proc/sys/kernel/overflowuid").read_text())}
    return set()


def _is_private_group(gid: int) -> bool:
    """Return whether a group has no members except this user and root. Root's own group is trusted."""
    if gid == ROOT:
        return True
    members = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid}
    with suppress(KeyError):
        for name in grp.getgrgid(gid).gr_mem:
            with suppress(KeyError):
                members.add(pwd.getpwnam(name).pw_uid)
    return members <= {ROOT, os.geteuid()}


def _has_access_list(path: Path) -> bool:
    with suppress(OSError):
        return "system.posix_acl_access" in os.listxattr(path, follow_symlinks=False)
    return False


def _unusable(path: Path, problem: str) -> ConfigError:
    return ConfigError(f"the cache can't be used: {str(path)!r} {problem}; {HINT}")


@lru_cache(8)
def _warn_once(message: str, *values: object) -> None:
    log.warning(message, *values)
