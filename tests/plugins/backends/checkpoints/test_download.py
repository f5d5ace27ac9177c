"""The Hub, as a server of this test and as a cache on this machine."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi
from support.gguf_models import write_model
from support.model_families import build
from support.tiny_models import save_model

from fllm.errors import ConfigError, ModelError
from fllm.model import locate
from fllm.testing.echo import echo_model
from fllm_backends.checkpoints.download import (
    LocalModel,
    check_local_model,
    fetch_model,
    fetch_tokenizer_files,
)

RESPONSES = {
    "gone": (404, "RepoNotFound"),
    "gated": (403, "GatedRepo"),
    "old": (404, "RevisionNotFound"),
    "broken": (500, ""),
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, code = next(response for name, response in RESPONSES.items() if f"/org/{name}" in self.path)
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    yield
    server.shutdown()
    server.server_close()


def fetched(model: str, revision: str | None = None) -> LocalModel:
    return fetch_model(locate(model), revision=revision, weights=True, progress=lambda progress: None)


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("org/gone", None, r"'org/gone' does not exist on the Hub, or it is private \(set HF_TOKEN\)"),
        ("org/gated", None, "'org/gated' is gated: accept its terms"),
        ("org/old", "v9", "'org/old' at revision 'v9' does not exist on the Hub"),
        ("org/broken", None, "'org/broken' is not on this machine, and the Hub"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub: None, model: str, revision: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        fetched(model, revision)
    assert "\n" not in caught.value.message


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_hub_that_can_not_be_reached_is_one_line(offline: Path) -> None:
    with pytest.raises(ModelError, match="'org/name' is not on this machine") as caught:
        fetched("org/name")
    assert "\n" not in caught.value.message


def test_what_was_downloaded_before_is_named_after_its_commit(offline: Path) -> None:
    repository = offline / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    echo_model(repository / "snapshots" / COMMIT)
    save_model("Llama", repository / "snapshots" / COMMIT)
    model = fetched("org/name")
    assert (model.directory, model.artifact_id) == (repository / "snapshots" / COMMIT, COMMIT)


SECOND_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class Repository(BaseHTTPRequestHandler):
    """A Hub with one repository, which records the files that are fetched."""

    files: ClassVar[dict[str, bytes]]
    fetched: ClassVar[list[str]]

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            entries = ({"type": "file", "path": name, "size": len(c)} for name, c in self.files.items())
            self._send(
                json.dumps(
                    [
                        entry | {"oid": hashlib.sha1(self.files[entry["path"]]).hexdigest()}
                        for entry in entries
                    ]
                ).encode()
            )
        elif self.path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in self.files]
            self._send(json.dumps({"id": "org/one", "sha": SECOND_COMMIT, "siblings": siblings}).encode())
        else:
            name = self.path.split("/resolve/")[1].partition("/")[2]
            if self.command == "GET":
                self.fetched.append(name)
            self._send(self.files[name])

    do_HEAD = do_GET

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", SECOND_COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Repository]]:
    echo_model(tmp_path / "model")
    save_model("Llama", tmp_path / "model")
    files = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    Repository.files = files | {"consolidated.safetensors": b"the same weights once more", "README.md": b"#"}
    Repository.fetched = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Repository)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield Repository
    server.shutdown()
    server.server_close()


def test_weights_in_a_second_layout_are_not_downloaded(repository: type[Repository]) -> None:
    directory = fetched("org/one").directory
    assert {file.name for file in directory.iterdir()} >= {"config.json", "model.safetensors"}
    assert "consolidated.safetensors" not in repository.fetched


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["UnknownForCausalLM"]}, "does not support UnknownForCausalLM"),
        ({"quantization_config": {"quant_method": "hqq"}}, "quantized with hqq"),
    ],
)
def test_the_configuration_is_checked_before_weights_are_downloaded(
    change: dict[str, Any], message: str, repository: type[Repository]
) -> None:
    config = json.loads(repository.files["config.json"]) | change
    repository.files["config.json"] = json.dumps(config).encode()
    with pytest.raises(ModelError, match=message):
        fetched("org/one")
    assert "model.safetensors" not in repository.fetched


def test_a_missing_tokenizer_is_known_before_weights_are_downloaded(repository: type[Repository]) -> None:
    del repository.files["tokenizer.json"]
    with pytest.raises(ModelError, match=r"has no tokenizer.json"):
        fetched("org/one")
    assert "model.safetensors" not in repository.fetched


@pytest.fixture
def gguf_repository(
    repository: type[Repository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> type[Repository]:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "cache"))
    model = build("llama")
    write_model(tmp_path / "tiny-Q8_0.gguf", model, parts=2)
    write_model(tmp_path / "tiny-Q4_K_M.gguf", model)
    repository.files = {file.name: file.read_bytes() for file in tmp_path.glob("tiny-*.gguf")}
    return repository


@pytest.mark.parametrize(
    ("model", "files"),
    [
        ("org/one:Q8_0", ["tiny-Q8_0-00001-of-00002.gguf", "tiny-Q8_0-00002-of-00002.gguf"]),
        ("org/one-GGUF", ["tiny-Q4_K_M.gguf"]),
    ],
)
def test_only_the_gguf_files_of_one_quantization_are_downloaded(
    model: str, files: list[str], gguf_repository: type[Repository]
) -> None:
    found = fetched(model)
    assert sorted(gguf_repository.fetched) == files
    assert found.gguf
    assert found.gguf.name == files[0]
    assert (found.directory / "tokenizer.json").is_file()


def test_gguf_files_on_this_machine_are_enough_if_no_hub_responds(
    gguf_repository: type[Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched("org/one:Q4_K_M")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setattr(
            huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{bound.getsockname()[1]}"
        )
        monkeypatch.setattr(HfApi, "list_repo_files", lambda *_, **__: pytest.fail("it would try again"))
        found = fetched("org/one:Q4_K_M")
    assert found.gguf
    assert found.gguf.name == "tiny-Q4_K_M.gguf"


def test_a_quantization_that_the_hub_lacks_names_the_others(gguf_repository: type[Repository]) -> None:
    with pytest.raises(ModelError, match=r"no GGUF file Q5_K_M; .*: Q4_K_M, Q8_0"):
        fetched("org/one:Q5_K_M")
    assert gguf_repository.fetched == []


def test_reading_a_gguf_file_without_its_packages_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    for read in (
        lambda: check_local_model(locate(str(file)), weights=True),
        lambda: fetch_tokenizer_files(str(file), None, lambda _: None),
    ):
        with pytest.raises(ConfigError) as caught:
            read()
        assert caught.value.message == (
            "reading a GGUF file needs the extra 'torch': pip install 'furiosa-llm-server[torch]'"
        )
