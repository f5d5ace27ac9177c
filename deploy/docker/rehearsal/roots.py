"""Roots to run a step in: a minimal Debian, layers of overlayfs above it, and chroot."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "ca-certificates,python3,python3-dev,python3-venv"
FROM_HERE = ("proc", "dev", "sys")


@dataclass(frozen=True)
class Machine:
    """What every root borrows from the machine that it is on."""

    work: Path
    """Everything is kept under it."""
    mirror: str
    """Of Debian; empty: debootstrap's own."""
    binds: tuple[Path, ...] = ()
    """Files and folders that each root sees, at the same place: pip's settings, certificates."""

    def base(self) -> Path:
        """A minimal system with Python 3.11 as ``python``, made once."""
        root = self.work / "base"
        if not (root / "usr/bin/python").exists():
            shutil.rmtree(root, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
            subprocess.run([*command, *([self.mirror] if self.mirror else [])], check=True)
            (root / "usr/bin/python").symlink_to("python3")
            shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        return root

    def mount(self, layers: Sequence[Path], name: str) -> tuple[Path, Path]:
        """A root of these layers, the lowest first, and the new layer that takes what is written to it."""
        here = self.work / name
        shutil.rmtree(here, ignore_errors=True)
        root, layer, scratch = (here / each for each in ("root", "layer", "scratch"))
        for folder in (root, layer, scratch):
            folder.mkdir(parents=True)
        lower = ":".join(str(each) for each in reversed(layers))
        options = f"lowerdir={lower},upperdir={layer},workdir={scratch}"
        _mount("-t", "overlay", "-o", options, "overlay", root)
        for each in FROM_HERE:
            _mount("--rbind", f"/{each}", root / each)
        for path in self.binds:
            _bind(path, within(root, path))
        return root, layer


def within(root: Path, path: str | Path) -> Path:
    """Where an absolute path is found in a root."""
    return root / str(path).lstrip("/")


def restrict(root: Path, writable: Path, owner: int) -> None:
    """Make a root read-only, but for an empty ``/tmp`` and one folder."""
    _mount("-t", "tmpfs", "tmpfs", root / "tmp")
    _mount("-t", "tmpfs", "tmpfs", within(root, writable))
    os.chown(within(root, writable), owner, owner)
    _mount("-o", "remount,ro", root)


def size(layers: Sequence[Path]) -> int:
    """Bytes of these layers together."""
    files = (
        path for layer in layers for path in layer.rglob("*") if path.is_file() and not path.is_symlink()
    )
    return sum(path.lstat().st_size for path in files)


def _bind(outer: Path, inner: Path) -> None:
    if outer.is_dir():
        inner.mkdir(parents=True, exist_ok=True)
    else:
        inner.parent.mkdir(parents=True, exist_ok=True)
        inner.touch()
    _mount("--bind", outer, inner)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)
