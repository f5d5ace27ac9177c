"""Virtual environments for third-party code, on top of the current environment."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from sysconfig import get_path


def call(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run a command that must succeed; return its stdout."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, cwd=cwd, timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def create_environment(directory: Path, *, without: str | None = None) -> Path:
    """Create an environment that also sees the current one's packages; return its interpreter.

    It does not see the package ``without``.
    """
    venv.create(directory, symlinks=True)
    interpreter = directory / "bin" / "python"
    site = Path(call(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    current = Path(get_path("purelib"))
    if without is not None:
        links = directory.with_name(f"{directory.name}-packages")
        links.mkdir()
        for entry in current.iterdir():
            if entry.name.partition("-")[0] != without:
                (links / entry.name).symlink_to(entry)
        current = links
    (site / "current.pth").write_text(f"import site; site.addsitedir({str(current)!r})\n")
    return interpreter


def install(interpreter: Path, *what: str | Path) -> None:
    """Install local projects or files, without dependencies and without an index."""
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        interpreter,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    )
    call(*pip, "--no-build-isolation", *what)
