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


def create_environment(directory: Path) -> Path:
    """Create an environment that also sees the current one's packages; return its interpreter."""
    venv.create(directory, symlinks=True)
    interpreter = directory / "bin" / "python"
    site = Path(call(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "current.pth").write_text(f"import site; site.addsitedir({get_path('purelib')!r})\n")
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
