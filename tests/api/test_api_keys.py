"""API keys: their sources, reloading, and where they must not appear."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import pytest
from litestar import asgi, get, post
from litestar.params import PathParameter
from litestar.types import Receive, Scope, Send
from support.api_fakes import a_server, ask
from support.http_server import Server, run, serving
from support.model_scripts import LLAMA31_WEATHER, write_script
from support.paths import SUPPORT

from fllm.errors import ConfigError
from fllm.plugins.hooks import hookimpl
from fllm.testing import plugins_with
from fllm_api.api_keys import ApiKeys
from fllm_api.app import create_app
from fllm_api.request_context import context_of

UNHEALTHY_PLUGIN = SUPPORT / "unhealthy_plugin.py"
GIVEN, IN_ENVIRONMENT, IN_FILE, ADDED = "sk-given-7f3a", "sk-environ-91bc", "sk-file-5d20", "sk-added-c4e8"
PUBLIC_PATHS = {"/health", "/ready", "/", "/page/panels/{script:str}"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    made.write_text(f"# of the team\n\n  {IN_FILE}  \n#{ADDED}\n")
    made.chmod(0o600)
    return made


def loaded_keys(file: Path, *keys: str) -> ApiKeys:
    made = ApiKeys(keys)
    made.load(file)
    return made


def test_a_file_has_one_key_per_line_except_blanks_and_comments(file: Path) -> None:
    keys = loaded_keys(file, GIVEN)
    assert keys.required
    assert keys.client(IN_FILE.encode())
    assert keys.client(GIVEN.encode())
    for other in (ADDED, f"#{ADDED}", "# of the team", "", IN_FILE[:-1], f"{IN_FILE}x"):
        assert keys.client(other.encode()) is None


def test_the_name_of_a_client_is_stable_and_contains_no_part_of_the_key(file: Path) -> None:
    keys = loaded_keys(file, GIVEN)
    name = keys.client(GIVEN.encode())
    file.write_text(ADDED)
    keys.reload()
    assert keys.client(GIVEN.encode()) == name != keys.client(ADDED.encode())
    assert ApiKeys([GIVEN]).client(GIVEN.encode()) != name


def test_reloading_adds_and_removes_keys(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = loaded_keys(file)
    file.write_text(ADDED)
    with caplog.at_level(logging.INFO):
        keys.reload()
    assert keys.client(ADDED.encode())
    assert keys.client(IN_FILE.encode()) is None
    assert "API keys reloaded: 1 key" in caplog.text
    assert ADDED not in caplog.text


def test_all_keys_of_an_owner_are_one_client(file: Path) -> None:
    file.write_text(f"\ufeffann {IN_FILE}\r\nann\t {ADDED}\nbob sk-bob\nsk-alone\nann {IN_FILE}\n")
    keys = loaded_keys(file, GIVEN, ADDED)
    assert keys.client(IN_FILE.encode()) == keys.client(ADDED.encode()) == "owner:ann"
    assert keys.client(b"sk-bob") == "owner:bob"
    for alone in (b"sk-alone", GIVEN.encode()):
        assert str(keys.client(alone)).startswith("key:")
    assert keys.client(b"ann") is None
    file.write_text(f"bob {IN_FILE}")
    keys.reload()
    assert keys.client(IN_FILE.encode()) == "owner:bob"
    assert str(keys.client(ADDED.encode())).startswith("key:")


ODD = [
    "\u00a0",
    "\u2003",
    "\u200b",
    "\u2028",
    "\u0085",
    "\x0b",
    "\x0c",
    "\x1f",
    "\x7f",
    "\ufeff",
    "é",
    "\ud800",
]


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_a_key_or_owner_of_odd_characters_is_refused_by_its_line(odd: str, file: Path) -> None:
    for text in (f"{ADDED}{odd}", f"{odd}{ADDED}", f"ann {ADDED}{odd}", f"an{odd}n {ADDED}"):
        file.write_bytes(f"# one\n{text}\n".encode("utf-8", "surrogatepass"))
        with pytest.raises(ConfigError, match=r"line 2: the (key|owner) has|it is not UTF-8") as raised:
            loaded_keys(file)
        assert ADDED not in raised.value.message
    with pytest.raises(ConfigError, match="--api-key: a key has a character") as raised:
        ApiKeys([f"{ADDED}{odd}"])
    assert ADDED not in raised.value.message


def test_the_name_of_an_owner_is_bounded(file: Path) -> None:
    file.write_text(f"{'a' * 64} {ADDED}")
    assert loaded_keys(file).client(ADDED.encode()) == f"owner:{'a' * 64}"
    file.write_text(f"{'a' * 65} {ADDED}")
    with pytest.raises(ConfigError, match="longer than 64 characters"):
        loaded_keys(file)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda file: file.unlink(), "No such file"),
    "empty": (lambda file: file.write_text("# nothing\n\n"), "has no key"),
    "binary": (lambda file: file.write_bytes(b"sk-\xff\xfe"), "it is not UTF-8"),
    "a key with a space that is not ASCII": (
        lambda file: file.write_text(f"\n{ADDED}\u00a0\n"),
        "line 2: the key has a character that is not visible ASCII",
    ),
    "a line of three words": (lambda file: file.write_text(f"ann {ADDED} # laptop"), "line 1: 4 words"),
    "a key of two owners": (
        lambda file: file.write_text(f"ann {ADDED}\n{GIVEN}\nbob {ADDED}"),
        "line 3: the same key has another owner",
    ),
    "a directory": (lambda file: (file.unlink(), file.mkdir()), "Is a directory"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_the_keys_stay_valid_if_the_file_becomes_invalid(
    how: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = loaded_keys(file)
    break_it, says = BROKEN[how]
    break_it(file)
    keys.reload()
    assert keys.client(IN_FILE.encode())
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert says in record.message
    with pytest.raises(ConfigError, match=says):
        loaded_keys(file)


def test_without_a_file_there_is_nothing_to_reload(caplog: pytest.LogCaptureFixture) -> None:
    keys = ApiKeys([GIVEN])
    keys.reload()
    assert keys.client(GIVEN.encode())
    assert "no --api-key-file" in caplog.text


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False), (0o600, False)])
def test_a_world_readable_file_is_warned_about(
    mode: int, warned: bool, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.chmod(mode)
    loaded_keys(file).warn_if_world_readable()
    assert ("readable by every user" in caplog.text) is warned


@pytest.mark.parametrize("content", [b"", b"# only this\n", b"\xff\xfe", "sk-1\u00a0".encode()])
def test_the_command_rejects_an_invalid_file_in_one_line(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    refused = run("serve", "--api-key-file", str(file))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"furiosa-llm: error: --api-key-file {file}")
    assert "sk-1" not in refused.stderr
    assert refused.stderr.count("\n") == 1


class Routes:
    """A plugin with routes of every kind."""

    @hookimpl
    def fllm_routes(self) -> list[Any]:
        @get("/theirs")
        async def theirs() -> str:
            return "theirs"

        @post("/theirs/{name:str}")
        async def named(name: Annotated[str, PathParameter()]) -> str:
            return name

        @asgi("/mounted", is_mount=True, copy_scope=True)
        async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
            raise AssertionError("nobody without a key gets here")

        return [theirs, named, mounted]


def test_every_route_needs_a_key_except_those_without_data() -> None:
    plugins = plugins_with(Routes())
    server = a_server(config={"keys": ApiKeys([GIVEN]), "enable_metrics": True}, plugins=plugins)
    open_paths = set()
    routes = create_app(server).routes
    for route in routes:
        path = route.path.replace("{name:str}", "x")
        for method in {"GET", "POST", "OPTIONS", "HEAD"} & set(getattr(route, "methods", {"GET"})):
            if ask(server, method, path).status_code != 401:
                open_paths.add(route.path)
    paths = {route.path for route in routes}
    assert paths > {"/theirs", "/mounted", "/metrics", "/schema", "/v1/chat/completions"}
    assert open_paths == PUBLIC_PATHS & paths


def test_handlers_can_read_the_client() -> None:
    seen = []

    class Seeing:
        @hookimpl
        def fllm_routes(self) -> list[Any]:
            @asgi("/who", copy_scope=True)
            async def who(scope: Scope, receive: Receive, send: Send) -> None:
                seen.append(context_of(scope).client)
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"", "more_body": False})

            return [who]

    plugins = plugins_with(Seeing())
    keys = ApiKeys([GIVEN])
    ask(a_server(plugins=plugins), "GET", "/who")
    ask(
        a_server(plugins=plugins, config={"keys": keys}),
        "GET",
        "/who",
        headers={"authorization": f"Bearer {GIVEN}"},
    )
    assert seen == ["ip:127.0.0.1", keys.client(GIVEN.encode())]


def status(server: Server, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.get(f"{server.api}/models", headers=headers, timeout=30).status_code


def send_sighup(server: Server, until: str) -> None:
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while until not in server.log():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("model")
    write_script(LLAMA31_WEATHER, directory)
    return directory


def test_a_server_reloads_its_file_on_sighup_and_shows_no_key(model: Path, file: Path) -> None:
    arguments = (str(model), "--plugin", str(UNHEALTHY_PLUGIN), "--backend", "unhealthy", "--api-key", GIVEN)
    options = ("--api-key-file", str(file), "--log-level", "debug", "--enable-payload-logging")
    with serving(*arguments, *options, FURIOSA_LLM_API_KEY="never read") as server:
        assert (status(server, GIVEN), status(server, IN_FILE), status(server, ADDED)) == (200, 200, 401)
        proc = Path("/proc", str(server.process.pid))
        title = proc.joinpath("cmdline").read_text().strip("\0 ")
        assert title == f"furiosa-llm serve {model} --port {urlsplit(server.url).port}"
        assert b"never read" not in proc.joinpath("environ").read_bytes()
        file.write_text(ADDED)
        send_sighup(server, "API keys reloaded")
        assert (status(server, GIVEN), status(server, IN_FILE), status(server, ADDED)) == (200, 401, 200)
        file.write_text("")
        send_sighup(server, "has no key")
        assert status(server, ADDED) == 200
        assert httpx.get(f"{server.url}/health").status_code == 200
        for key in (GIVEN, IN_FILE, ADDED):
            assert key not in server.log()


SECRET_OPTION = """
import fllm
from typing import Annotated
from msgspec import Meta, Struct

class FLLM_OPTIONS(Struct):
    token: Annotated[str, Meta(extra={"secret": True})]

@fllm.hookimpl
def fllm_collectors(context):
    assert context.options.token == "hunter2"
    return []
"""


def test_sighup_does_not_stop_a_server_without_a_file(model: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "secret_option.py"
    plugin.write_text(SECRET_OPTION)
    arguments = (str(model), "--plugin", str(UNHEALTHY_PLUGIN), "--backend", "unhealthy", "--plugin", plugin)
    secrets = {"FURIOSA_LLM_API_KEY": IN_ENVIRONMENT, "FURIOSA_LLM_PLUGIN_SECRET_OPTION_TOKEN": "hunter2"}
    with serving(*arguments, **secrets) as server:
        send_sighup(server, "no --api-key-file")
        assert (status(server, IN_ENVIRONMENT), status(server, GIVEN)) == (200, 401)
        environment = Path(f"/proc/{server.process.pid}/environ").read_bytes()
        for secret in (IN_ENVIRONMENT, "hunter2"):
            assert secret.encode() not in environment
            assert secret not in server.log()
        assert "fllm_collectors" not in server.log()  # it did not fail


SEARCH = """
import gc, os, sys
from fllm_api.cli import lifecycle
from fllm_api.cli.main import main

def texts(found, depth=3):
    if isinstance(found, (str, bytes)):
        yield found if isinstance(found, str) else found.decode("latin-1")
    elif depth and isinstance(found, (list, tuple, set, frozenset)):
        for each in found:
            yield from texts(each, depth - 1)

def search(*_):
    gc.collect()
    everything = [each for each in gc.get_objects() if isinstance(each, (dict, list, tuple, set, frozenset))]
    held = set()
    for each in everything:
        if each is held:
            continue
        values = [*each.keys(), *each.values()] if isinstance(each, dict) else each
        for value in values:
            for text in texts(value):
                if text.startswith("sk-") and 3 < len(text) < 40:
                    held.add(text)
    print("held:", sorted(held), sys.argv[1:], "FURIOSA_LLM_API_KEY" in os.environ)

lifecycle.run = search
main()
"""


@pytest.mark.parametrize("source", ["command line", "environment", "configuration"])
def test_no_object_of_a_server_holds_a_key(source: str, model: Path, tmp_path: Path, file: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(SEARCH)
    config = tmp_path / "server.toml"
    config.write_text(f'api-key = ["{GIVEN}"]')
    arguments = {
        "command line": ["--api-key", GIVEN],
        "environment": [],
        "configuration": ["--config", str(config)],
    }[source]
    environment = {"FURIOSA_LLM_API_KEY": IN_ENVIRONMENT} if source == "environment" else {}
    options = [
        "--port",
        "0",
        "--api-key-file",
        str(file),
        "--plugin",
        str(UNHEALTHY_PLUGIN),
        "--backend",
        "unhealthy",
    ]
    done = subprocess.run(
        [sys.executable, str(script), "serve", str(model), *options, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "held: [] [] False\n", done.stderr


def test_names_are_the_same_in_another_process_with_the_same_secret(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("ann key-of-ann\n")

    def names(secret: bytes | None) -> list[str | None]:
        keys = ApiKeys(["a-key", "b-key"])
        keys.load(file)
        if secret is not None:
            keys.keep_names(secret)
        return [keys.client(key) for key in (b"a-key", b"b-key", b"key-of-ann", b"unknown")]

    first = names(b"s" * 32)
    assert first == names(b"s" * 32)
    assert first[2:] == ["owner:ann", None]
    assert len({*first, *names(b"t" * 32), *names(None)} - {"owner:ann", None}) == 6
    assert all("key" not in str(name).removeprefix("key:") for name in first)
