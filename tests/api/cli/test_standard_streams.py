"""What a program prints into, and reads from, if its standard streams are closed."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

PROGRAM = """
import os, pathlib, sys
from fllm_api.cli.standard_streams import open_standard_streams
open_standard_streams()
print("out", flush=True)
print("error", file=sys.stderr, flush=True)
read = sys.stdin.read()
next_file = os.open("/dev/null", os.O_RDONLY)
pathlib.Path(sys.argv[1]).write_text(f"{read!r} {next_file} {[os.get_inheritable(i) for i in range(3)]}")
"""


CLOSED = [" ".join(each).strip() for each in product(("", "<&-"), ("", ">&-"), ("", "2>&-"))]


@pytest.mark.parametrize("closed", CLOSED)
def test_a_closed_stream_is_the_null_device(closed: str, tmp_path: Path) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", PROGRAM, str(tmp_path / "seen")]
    done = subprocess.run(command, input="in", capture_output=True, text=True, check=True)
    read = "" if "<" in closed else "in"
    assert (tmp_path / "seen").read_text() == f"{read!r} 3 [True, True, True]"
    assert done.stdout == ("" if ">&-" in closed.split() else "out\n")
    assert done.stderr == ("" if "2>" in closed else "error\n")
