"""Root file systems for build steps: a minimal Debian with overlayfs layers on top, entered by chroot."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "ca-certificates,python3,python3-dev,python3-venv"
HOST_MOUNTS = ("proc", "dev", "sys")


@dataclass(frozen=True)
class Machine:
    """The host that builds and mounts the root file systems."""

    work: Path
    """Directory for all roots and layers."""
    mirror: str
    """URL of a Debian mirror; if empty, debootstrap's default."""
    binds: tuple[Path, ...] = ()
    """Files and directories visible in each root at the same path, such as pip settings and certificates."""

    def base(self) -> Path:
        """Return a minimal system with Python 3.11 as ``python``; it is created once."""
        root = self.work / "base"
        if not (root / "usr/bin/python").exists():
            shutil.rmtree(root, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
            subprocess.run([*command, *([self.mirror] if self.mirror else [])], check=True)
            (root / "usr/bin/python").symlink_to("python3")
            shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        return root

    def mount(self, layers: Sequence[Path], name: str) -> tuple[Path, Path]:
        """Mount these layers, lowest first; return the root and the new layer that receives its writes."""
        here = self.work / name
        shutil.rmtree(here, ignore_errors=True)
        root, layer, scratch = (here / each for each in ("root", "layer", "scratch"))
        for folder in (root, layer, scratch):
            folder.mkdir(parents=True)
        lower = ":".join(str(each) for each in reversed(layers))
        options = f"lowerdir={lower},upperdir={layer},workdir={scratch}"
        _mount("-t", "overlay", "-o", options, "overlay", root)
        for each in HOST_MOUNTS:
            _mount("--rbind", f"/{each}", root / each)
        for path in self.binds:
            _bind(path, within(root, path))
        return root, layer


def within(root: Path, path: str | Path) -> Path:
    """Return the host's path of an absolute path inside a root."""
    return root / str(path).lstrip("/")


def restrict(root: Path, writable: Path, owner: int) -> None:
    """Make a root read-only, except an empty ``/tmp`` and one directory."""
    _mount("-t", "tmpfs", "tmpfs", root / "tmp")
    _mount("-t", "tmpfs", "tmpfs", within(root, writable))
    os.chown(within(root, writable), owner, owner)
    _mount("-o", "remount,ro", root)


def size(layers: Sequence[Path]) -> int:
    """Return the total size of these layers in bytes."""
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
