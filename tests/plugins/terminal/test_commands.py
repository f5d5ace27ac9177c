"""`furiosa-llm chat` and `run` as a user types them, with the embedded model and with a running server."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fllm.testing import ECHO_PLUGIN, Server, echo_model, serving

COMMAND = [sys.executable, "-m", "fllm_api"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server that answers with the last message, and asks for a key."""
    model = echo_model(tmp_path_factory.mktemp("echo") / "echo")
    with serving(model, "--plugin", ECHO_PLUGIN, "--backend", "echo", "--api-key", "k") as running:
        yield running


def run(*arguments: str, text: str = "", key: str = "k") -> subprocess.CompletedProcess[str]:
    """Run the command with this standard input."""
    environment = {**os.environ, "OPENAI_API_KEY": key}
    return subprocess.run(
        [*COMMAND, *arguments], input=text, capture_output=True, text=True, timeout=120, env=environment
    )


def test_run_prints_exactly_the_answer(server: Server) -> None:
    done = run("run", "Say: \x1b[1m", "--model", server.url, "--stats", text="piped\n")
    assert (done.returncode, done.stdout) == (0, "Say: \x1b[1m\n\npiped\n")
    assert "tokens/s" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "there is no prompt"),
        (["run", "x", "--model", "localhost:1"], "http://localhost:1/v1: Connection refused"),
        (["run", "x", "--model", "/no/such/model"], "/no/such/model"),
        (["run", "x", "--tools", __file__], "is not JSON"),
        (["run", "x", "--serve-options", "'"], "--serve-options: No closing quotation"),
        (
            ["run", "x", "--model", "localhost:1", "--serve-options", "--seed 1"],
            "the address of a running server",
        ),
    ],
)
def test_an_error_is_one_line(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("furiosa-llm: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_wrong_key_is_named(server: Server) -> None:
    done = run("chat", server.url, key="wrong")
    assert done.returncode == 2
    assert "--api-key (HTTP 401)" in done.stderr


@pytest.mark.parametrize("command", [["run", "x", "--model"], ["chat"]])
def test_text_that_the_encoding_lacks_is_replaced(server: Server, command: list[str]) -> None:
    environment = {**os.environ, "OPENAI_API_KEY": "k", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*COMMAND, *command, server.url], input=b"caf\xe9", capture_output=True, timeout=60, env=environment
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"caf?" in done.stdout


def test_a_url_that_is_not_of_a_server(server: Server) -> None:
    asked = run("run", "x", "--model", f"{server.url}/nope").stderr
    assert f"{server.url}/nope/v1/models (HTTP 404)" in asked
    assert "no TLS connection" in run("run", "x", "--model", server.url.replace("http", "https")).stderr


def test_a_chat_of_lines(server: Server, tmp_path: Path) -> None:
    lines = ["first", '"""second', 'line"""', "/system Be short.", "/set top_k 1", f"/save {tmp_path}/c.json"]
    done = run("chat", server.url, text="\n".join([*lines, "/nope", "/undo", "/retry", "/exit", "never"]))
    assert done.returncode == 0, done.stderr
    assert "first\n" in done.stdout
    assert "second\nline\n" in done.stdout
    assert "there is no command /nope" in done.stdout
    assert "never" not in done.stdout
    saved = json.loads((tmp_path / "c.json").read_text())
    assert saved["top_k"] == 1
    assert [message["content"] for message in saved["messages"]] == [
        "Be short.",
        *["first"] * 2,
        *["second\nline"] * 2,
    ]


@pytest.mark.parametrize(("prefix", "ending"), [([], signal.SIGHUP), (["nohup"], signal.SIGTERM)])
def test_a_chat_that_is_ended_leaves_no_files(
    tmp_path: Path, prefix: list[str], ending: signal.Signals
) -> None:
    model = echo_model(tmp_path / "echo")
    temporary = Path(tempfile.mkdtemp())  # the path of a socket must be short
    options = f"--plugin {ECHO_PLUGIN} --backend echo"
    with subprocess.Popen(
        [*prefix, *COMMAND, "chat", str(model), "--serve-options", options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
    ) as chat:
        assert chat.stdout
        assert any(b"/help" in line for line in chat.stdout)  # a long path takes a line of its own
        assert [*temporary.glob("furiosa-llm-*")]
        if prefix:
            chat.send_signal(signal.SIGHUP)
            time.sleep(0.3)
            assert chat.poll() is None
        chat.send_signal(ending)
        assert chat.wait(60) == 128 + ending
    temporary.rmdir()  # it is empty


HIDES_CURSOR = "\x1b[?25l"
"""Sent when an answer begins to be drawn."""


class Terminal:
    """A program in a terminal."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm", COLUMNS="80", LINES="24", OPENAI_API_KEY="k")
            os.execv(COMMAND[0], [*COMMAND, *arguments])
        self.screen = ""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until the text has appeared after the text of the previous call."""
        end = time.monotonic() + seconds
        while text not in self.screen:
            readable, _, _ = select.select([self._file], [], [], max(end - time.monotonic(), 0))
            assert readable, self.screen
            self.screen += os.read(self._file, 4096).decode(errors="replace")
        self.screen = self.screen.partition(text)[2]

    def type(self, text: str) -> None:
        """Send keys."""
        os.write(self._file, text.encode())

    def end(self) -> int:
        """Type Ctrl-D until the program ends, and return the exit status. A key before a prompt is lost."""
        for _ in range(60):
            with suppress(OSError):
                self.type("\x04")
                while select.select([self._file], [], [], 1)[0]:
                    os.read(self._file, 4096)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    """Chat with the embedded model in a terminal."""
    program = Terminal("chat", "--temperature", "0", "--serve-options", "--max-model-len 1024")
    program.wait_for("/help lists the commands")
    yield program
    assert program.end() == 0


def test_a_chat_in_a_terminal(terminal: Terminal) -> None:
    terminal.type("What is the capital of France?\r")
    terminal.wait_for("Paris")
    terminal.wait_for("tokens/s")


def test_ctrl_c_ends_the_answer_and_not_the_chat(terminal: Terminal) -> None:
    terminal.type("Write a very long story about the sea.\r")
    terminal.wait_for(HIDES_CURSOR)
    os.kill(terminal.pid, signal.SIGINT)
    terminal.wait_for("ended by you")
    terminal.type("/set\r")
    terminal.wait_for("temperature")
    terminal.type("\x03")
    terminal.wait_for("Ctrl-D leaves")
