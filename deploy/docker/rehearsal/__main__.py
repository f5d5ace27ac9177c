"""Build and run the Dockerfile without a container engine: each step in a chroot.

As root on Debian with ``debootstrap``, after ``pip install dockerfile-parse``, in ``deploy/docker``::

    python -m rehearsal --target cpu --run

It ends with the image's own command as ``compose.yaml`` runs it: the image's user, no capabilities, a
read-only root. What differs from an engine: the base is Debian's minimal system with Debian's Python 3.11
instead of ``python:3.11-slim-bookworm``; network and process ids are the machine's; ``.dockerignore`` and
limits of resources are not applied.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from rehearsal.roots import Machine, restrict, size
from rehearsal.stages import Rehearsal, Stage

DOCKER = Path(__file__).parent.parent
PORT = 8765
READY_SECONDS = 300
CACHE = Path("/cache")
CLONE_NEWNS = 0x00020000
CHAT = {
    "model": "m",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 16,
    "temperature": 0,
}
MUST_FAIL = "test $(id -u) -ne 0 && ! touch /etc/x 2>/dev/null && ! touch /opt/x 2>/dev/null"


def main() -> None:
    """Rehearse one target."""
    given = arguments()
    leave_mounts_behind()
    given.work.mkdir(parents=True, exist_ok=True)
    machine = Machine(given.work, given.mirror, tuple(given.bind))
    args = dict(each.split("=", 1) for each in given.build_arg)
    image = Rehearsal(DOCKER / "Dockerfile", DOCKER.parent.parent, machine, args).build(given.target)
    print(f"built {given.target}: {size(image.layers[1:]) / 1e6:.0f} MB above the base", flush=True)
    if given.run:
        root, _ = machine.mount(image.layers, "run")
        restrict(root, CACHE, int(image.user.partition(":")[0]))
        serve(root, image)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m rehearsal", description="Rehearse the Dockerfile without an engine."
    )
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/furiosa-llm-rehearsal"))
    parser.add_argument("--mirror", default="", help="of Debian")
    parser.add_argument("--bind", type=Path, action="append", default=[], help="a path that each step sees")
    parser.add_argument("--build-arg", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--run", action="store_true", help="start what was built, and ask it something")
    return parser.parse_args()


def leave_mounts_behind() -> None:
    """Mount in a namespace of this process's own: it ends with the process."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def serve(root: Path, image: Stage) -> None:
    """Start the image's command, ask what its health check and a client ask, and stop it."""
    command = [*image.commands["ENTRYPOINT"], *image.commands["CMD"], "--port", str(PORT)]
    process = subprocess.Popen(confined(root, image, command), env=image.env)
    try:
        wait_until_ready(process)
        subprocess.run(confined(root, image, ["/bin/sh", "-c", MUST_FAIL]), env=image.env, check=True)
        health = [word.replace("8000", str(PORT)) for word in image.commands["HEALTHCHECK"]]
        subprocess.run(confined(root, image, health), env=image.env, check=True)
        print("answer:", chat(), flush=True)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(90)
    print(f"SIGTERM: exit status {status}", flush=True)
    if status:
        raise SystemExit(1)


def confined(root: Path, image: Stage, command: Sequence[str]) -> list[str]:
    """The command in the root, as the image's user, without any capability, now or later."""
    user, _, group = image.user.partition(":")
    drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
    drop += ["--bounding-set=-all", "--inh-caps=-all"]
    return ["chroot", str(root), *drop, "/usr/bin/env", "-C", image.workdir, *command]


def wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    """Return when ``/ready`` is 200; `SystemExit` if the server ends before."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://localhost:{PORT}/ready", timeout=5)
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit(f"not ready; exit status {process.poll()}")


def chat() -> str:
    """What the server says."""
    headers = {"content-type": "application/json"}
    url = f"http://localhost:{PORT}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(CHAT).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


if __name__ == "__main__":
    main()
