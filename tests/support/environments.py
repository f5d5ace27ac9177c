"""Environments of their own for what others write: empty, beside ours, which they see."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from sysconfig import get_path


def call(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Stdout of a command that succeeds."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, cwd=cwd, timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def beside_ours(directory: Path) -> Path:
    """Make one; gives its interpreter."""
    venv.create(directory, symlinks=True)
    interpreter = directory / "bin" / "python"
    site = Path(call(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "ours.pth").write_text(f"import site; site.addsitedir({get_path('purelib')!r})\n")
    return interpreter


def install(interpreter: Path, *what: str | Path) -> None:
    """Install from files, and nothing else."""
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
