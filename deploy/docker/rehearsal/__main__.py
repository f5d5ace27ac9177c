"""Build and run the Dockerfile without a container engine: each step runs in a chroot.

Run it in ``deploy/docker``, as root on Debian with ``debootstrap``, after ``pip install dockerfile-parse``::

    python -m rehearsal --target cpu --run

With ``--run`` it then starts the image's command as ``compose.yaml`` does: as the image's user, without
capabilities, on a read-only root.

Differences from a container engine:

- The base is Debian's minimal system with Debian's Python 3.11 instead of ``python:3.11-slim-bookworm``.
- Network and process ids are those of the host.
- ``.dockerignore`` and resource limits are not applied.
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
READY_TIMEOUT = 300
CACHE = Path("/cache")
CLONE_NEWNS = 0x00020000
CHAT_REQUEST = {
    "model": "m",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 16,
    "temperature": 0,
}
CONFINEMENT_CHECK = "test $(id -u) -ne 0 && ! touch /etc/x 2>/dev/null && ! touch /opt/x 2>/dev/null"


def main() -> None:
    """Build one target and, with ``--run``, run it."""
    options = parse_arguments()
    unshare_mounts()
    options.work.mkdir(parents=True, exist_ok=True)
    machine = Machine(options.work, options.mirror, tuple(options.bind))
    args = dict(each.split("=", 1) for each in options.build_arg)
    image = Rehearsal(DOCKER / "Dockerfile", DOCKER.parent.parent, machine, args).build(options.target)
    print(f"built {options.target}: {size(image.layers[1:]) / 1e6:.0f} MB above the base", flush=True)
    if options.run:
        root, _ = machine.mount(image.layers, "run")
        restrict(root, CACHE, int(image.user.partition(":")[0]))
        serve(root, image)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        "python -m rehearsal", description="Rehearse the Dockerfile without an engine."
    )
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/furiosa-llm-rehearsal"))
    parser.add_argument("--mirror", default="", help="Debian mirror (default: that of debootstrap)")
    parser.add_argument(
        "--bind", type=Path, action="append", default=[], help="path that is visible to each step"
    )
    parser.add_argument("--build-arg", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--run", action="store_true", help="start the built image and send it a request")
    return parser.parse_args()


def unshare_mounts() -> None:
    """Give this process its own mount namespace, so that its mounts disappear when it exits."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def serve(root: Path, image: Stage) -> None:
    """Start the image's command, run its health check, send a chat request, and stop it."""
    command = [*image.commands["ENTRYPOINT"], *image.commands["CMD"], "--port", str(PORT)]
    process = subprocess.Popen(confined(root, image, command), env=image.env)
    try:
        wait_until_ready(process)
        subprocess.run(confined(root, image, ["/bin/sh", "-c", CONFINEMENT_CHECK]), env=image.env, check=True)
        health = [word.replace("8000", str(PORT)) for word in image.commands["HEALTHCHECK"]]
        subprocess.run(confined(root, image, health), env=image.env, check=True)
        print("response:", chat(), flush=True)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(90)
    print(f"SIGTERM: exit status {status}", flush=True)
    if status:
        raise SystemExit(1)


def confined(root: Path, image: Stage, command: Sequence[str]) -> list[str]:
    """Return the command line that runs a command in the root as the image's user, without capabilities."""
    user, _, group = image.user.partition(":")
    drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
    drop += ["--bounding-set=-all", "--inh-caps=-all"]
    return ["chroot", str(root), *drop, "/usr/bin/env", "-C", image.workdir, *command]


def wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    """Return when ``/ready`` returns 200; exit if the server ends, or is not ready in time."""
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://localhost:{PORT}/ready", timeout=5)
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit(f"not ready; exit status {process.poll()}")


def chat() -> str:
    """Send a chat request and return the content of the response."""
    headers = {"content-type": "application/json"}
    url = f"http://localhost:{PORT}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(CHAT_REQUEST).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


if __name__ == "__main__":
    main()
