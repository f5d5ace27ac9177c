"""The Hub, as a server of this test and as a cache on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from support.tiny_models import save_model

from fllm.errors import ModelError
from fllm.model import locate
from fllm_backends.checkpoints.download import LocalModel, fetch_model

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
    save_model("Llama", repository / "snapshots" / COMMIT)
    model = fetched("org/name")
    assert (model.directory, model.artifact_id) == (repository / "snapshots" / COMMIT, COMMIT)
