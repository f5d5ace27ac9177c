"""The Hub cannot be reached, or does not respond."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
from support.fault_table import Seen, fault
from support.http_server import serving
from support.server_start import UNQUANTIZED, start_error
from support.tiny_models import save_model, write_gguf

from fllm_backends.checkpoints.gguf.extract import extract
from fllm_backends.checkpoints.gguf.metadata import Metadata

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@fault("Start", "The Hub refuses connections", must="Status 2 and one line, in bounded time")
def test_a_hub_that_is_down(tmp_path: Path, seen: Seen) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but not listening
        line = start_error("org/name", **hub(closed, tmp_path))
    assert "'org/name' is not on this machine, and the Hub can't be reached" in line
    seen(f"“{line}”")


@fault(
    "Start",
    "The Hub accepts the connection and never responds",
    must="Status 2 and one line, in bounded time",
)
def test_a_hub_that_does_not_respond(tmp_path: Path, seen: Seen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server_socket:
        line = start_error("org/name", **hub(server_socket, tmp_path))
    assert "'org/name' is not on this machine, and the Hub can't be reached" in line
    seen(f"“{line}”")


@fault("Start", "The Hub is down, but the model was downloaded before", must="The local copy is served")
def test_a_model_that_was_downloaded_is_served_without_the_hub(tmp_path: Path, seen: Seen) -> None:
    repository = tmp_path / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    write_model(repository / "snapshots" / COMMIT, tmp_path / "made")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with serving("org/name", *UNQUANTIZED, **hub(closed, tmp_path)) as server:
            body = {"model": "org/name", "prompt": "the", "max_tokens": 2}
            assert httpx.post(f"{server.api}/completions", json=body).status_code == 200
    seen("healthy, and it served a request")


def hub(at: socket.socket, cache: Path) -> dict[str, str]:
    address, port = at.getsockname()
    return {"HF_ENDPOINT": f"http://{address}:{port}", "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}


def write_model(directory: Path, original: Path) -> None:
    """Write a model with a tokenizer in Hugging Face's layout."""
    model = save_model("Llama", directory, hidden_size=64, head_dim=16)
    extract(Metadata(write_gguf(original.with_suffix(".gguf"), model)), directory)
