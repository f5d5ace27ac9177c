"""An invalid option is one line on stderr with the option, the value and the choices; exit status 2."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fllm_api.cli import main


def failure(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error message of a command that fails."""
    monkeypatch.setattr(sys, "argv", ["furiosa-llm", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert ended.value.code == 2, captured
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith("furiosa-llm: error: ")
    return line.removeprefix("furiosa-llm: error: ")


BAD = {
    "serv": ["No such command 'serv'. Did you mean 'serve'?"],
    "serve --prt 1": ["No such option '--prt'", "--port"],
    "serve one two": ["unexpected extra argument (two)"],
    "serve --port": ["'--port' requires an argument"],
    "serve --port 99999": ["'--port'", "99999", "0<=x<=65535"],
    "serve --port http": ["'--port': 'http' is not a valid integer"],
    "serve --request-timeout x": ["'--request-timeout': 'x' is not a valid number"],
    "serve --dtype int3": ["'--dtype'", "'int3'", "'auto', 'float16', 'bfloat16', 'float32'"],
    "serve --load-format pickle": ["'--load-format'", "'pickle'", "'auto', 'safetensors', 'gguf', 'dummy'"],
    "serve --log-level loud": ["'--log-level'", "'loud'", "'debug', 'info', 'warning', 'error'"],
    "serve --max-model-len 0": ["'--max-model-len'", "0 is not in the range x>=1"],
    "serve --max-num-seqs 0": ["'--max-num-seqs'", "x>=1"],
    "serve --max-num-batched-tokens -1": ["'--max-num-batched-tokens'", "x>=1"],
    "serve --seed -1": ["'--seed'", "x>=0"],
    "serve --shutdown-timeout -1": ["'--shutdown-timeout'", "x<=86400"],
    "serve --tool-call-parser lama3_json": [
        "'--tool-call-parser'",
        "there is no tool-call parser 'lama3_json'; did you mean 'llama3_json'?",
    ],
    "serve --reasoning-parser r2d2": ["'--reasoning-parser'", "'r2d2'", "registered: ", "deepseek_r1"],
    "serve --enable-auto-tool-choice --tool-call-parser none": [
        "--enable-auto-tool-choice requires --tool-call-parser NAME, not none",
        "llama3_json",
    ],
    "serve --enable-reasoning --reasoning-parser none": [
        "--enable-reasoning requires --reasoning-parser NAME, not none",
        "deepseek_r1",
    ],
    "serve --backend procss": [
        "'--backend'",
        "did you mean 'process'? (registered: openai, process, replicas, rngd, torch)",
    ],
    "serve --backend torch --devices npu:0": [
        "--backend torch does not support npu",
        "torch supports cuda, cpu",
    ],
    "serve --backend process": [
        "--backend process only runs another backend: name that one (backends: rngd supports"
    ],
    "serve --backend replicas": ["--backend replicas only runs another backend: name that one"],
    "serve --replicas 0": ["'--replicas'", "1<=x<=256"],
    "serve --replicas 2 --no-engine-process": [
        "--replicas 2: each replica needs an engine process (--no-engine-process)"
    ],
    "serve --replicas 2 --backend openai --backend-option url=http://h:1/v1": [
        "each replica needs an engine process (the backend openai has none)"
    ],
    "serve --replicas 2 --devices cuda:0,cuda:1,cuda:2": [
        "--devices has 3 devices and --replicas is 2: each replica needs the same number of them"
    ],
    "serve --replicas 2 --tensor-parallel-size 2 --devices cuda:0,cuda:1": [
        "--devices has 2 devices: --replicas 2 with --tensor-parallel-size 2 needs 4"
    ],
    "serve --backend-option eager": ["'--backend-option'", "'eager' is not KEY=VALUE"],
    "serve --devices gpu:0": ["'--devices'", "'gpu:0'", "valid forms: cpu, cpu:N, cuda"],
    "serve --devices npu:0:0-2": ["'--devices'", "'npu:0:0-2'", "groups of 1, 2, 4 or 8"],
    "serve --devices rngd:0:4": ["--devices: no backend supports rngd", "torch supports cuda, cpu"],
    "serve --allowed-origins a.org": [
        "'--allowed-origins'",
        "'a.org' is not an origin such as https://example.org; expected origins, localhost, * or none",
    ],
    "serve --ssl-certfile pyproject.toml": [
        "--ssl-certfile pyproject.toml: not a certificate with its key, or a wrong password: "
    ],
    "serve --ssl-keyfile pyproject.toml": ["--ssl-keyfile requires --ssl-certfile"],
    "serve --ssl-cert-reqs 2": ["--ssl-cert-reqs requires --ssl-certfile"],
    "serve --root-path llm": ["'--root-path'", "'llm' is not the beginning of a URL's path, such as /llm"],
    "serve --root-path /llm?x": ["'--root-path'", "'/llm?x' is not the beginning of a URL's path"],
    "serve --root-path /v1": [
        "'--root-path'",
        "'/v1' is the beginning of a route of this server, /v1/chat/comp",
    ],
    "serve --otlp-endpoint collector:4318": [
        "'--otlp-endpoint'",
        "'collector:4318' is not a URL such as http://localhost:4318",
    ],
    "serve --otlp-endpoint http://collector:port": ["'http://collector:port' is not a URL"],
    "serve --reasoning-field thinking": ["'--reasoning-field'", "'reasoning_content', 'reasoning', 'both'"],
    "serve --sse-keep-alive -1": ["'--sse-keep-alive'", "x<=86400"],
    "serve --allowed-origins [1]": ["'--allowed-origins'", "Expected `str`, got `int` - at `$[0]`"],
    "serve --default-chat-template-kwargs []": ["'--default-chat-template-kwargs'", "Expected `object`"],
    "serve --speculative-config ngram": [
        "'--speculative-config'",
        '\'ngram\' is not valid; expected JSON such as {"method": "ngram", "num_speculative_tokens": 5}',
    ],
    'serve --speculative-config {"method":"ngram"}': [
        "'--speculative-config'",
        "missing required field `num_speculative_tokens`",
    ],
    'serve --speculative-config {"method":"eagle","num_speculative_tokens":5}': [
        "there is no drafter 'eagle' (registered: draft_model, ngram, suffix)",
    ],
    'serve --speculative-config {"method":"ngram","num_speculative_tokens":5,"prompt_lookup_max":1}': [
        "--speculative-config: prompt_lookup_min is 2 and prompt_lookup_max is 1",
    ],
    'serve --speculative-config {"method":"suffix","num_speculative_tokens":5,"prompt_lookup_max":1}': [
        "--speculative-config prompt_lookup_max: there is no such option",
        "suffix_decoding_max_tree_depth",
    ],
    'serve --speculative-config {"method":"draft_model","num_speculative_tokens":5}': [
        "--speculative-config model=...: this option is required",
    ],
    'serve --speculative-config {"model":"/nowhere","num_speculative_tokens":5}': [
        "--speculative-config: model: '/nowhere' does not exist",
    ],
    "serve --limit foo=1": [
        "--limit: Object contains unknown field `foo`; known: concurrency, tokens-per-minute"
    ],
    "serve --limit concurrency=9 --limit bob.concurrency=0": ["--limit bob...: Expected `int` >= 1"],
    "serve --limit team.concurrency=1": ["--limit team...: only --api-key-file names owners of keys"],
    "serve --generation-config /nowhere": ["'--generation-config'", "'/nowhere' can't be read: No such file"],
    'serve --override-generation-config {"top_p":2}': ["'--override-generation-config'", "top_p", "<= 1.0"],
    'serve --override-generation-config {"seed":2}': ["the key 'seed' has no effect; known: temperature"],
    "serve --gpu-memory-utilization 0.9": [
        "No such option '--gpu-memory-utilization': use --backend-option kv_cache_memory=SIZE"
    ],
    "serve --model x.gguf": [
        "'x.gguf' is not NAME=SOURCE; one model needs no option: furiosa-llm serve MODEL"
    ],
    "serve m -ngl 99": ["No such option '-ngl': use --devices"],
    "serve --version": ["No such option '--version': run `furiosa-llm --version`"],
    "serve --max_model_len abc": ["'--max-model-len': 'abc' is not a valid integer"],
    "serve --tool-call-parser nope": ["there is no tool-call parser 'nope' (registered: "],
    "serve --chat-template /nowhere": ["'--chat-template'", "'/nowhere' does not exist"],
    "serve --config /nowhere": ["'--config'", "'/nowhere' does not exist"],
    "serve --plugin /nowhere.py": ["'--plugin'", "'/nowhere.py' does not exist"],
    "serve --revision main": ["--revision main requires a model on the Hub", "is local"],
    "serve --host nowhere.invalid": ["--host nowhere.invalid: "],
    "serve /nowhere": ["MODEL: ", "'/nowhere'"],
    "serve nowhere": ["MODEL: 'nowhere' is not a directory, a .gguf file or a Hub id"],
    "plugins --nope": ["No such option '--nope'"],
}


@pytest.mark.parametrize(("command", "says"), BAD.items(), ids=BAD)
def test_an_invalid_option_is_one_line_with_the_valid_values(
    command: str, says: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failure(*command.split(" "), monkeypatch=monkeypatch, capsys=capsys)
    for part in says:
        assert part in line


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_api_key_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failure("serve", "--api-key", value, monkeypatch=monkeypatch, capsys=capsys)
    assert "'--api-key': the value is empty" in line


def test_a_bad_value_of_the_environment_says_that_it_comes_from_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FURIOSA_LLM_PORT", "http")
    line = failure("serve", monkeypatch=monkeypatch, capsys=capsys)
    assert "'--port'" in line
    assert line.endswith("(from the environment)")


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("port = 'http'", ["'--port'", "(from the --config file)"]),
        ("prot = 1", ["has the unknown key 'prot'; did you mean 'port'?"]),
        ("zzzzzz = 1", ["has the unknown key 'zzzzzz'; known: ", " allowed_origins, api_key, api_key_file"]),
        ("config = 'other.toml'", ["has the unknown key 'config'"]),
        ("port = ", ["is not TOML"]),
        ("allowed-origins = 1", ["'--allowed-origins'", "'1' is not an origin"]),
        ("tool-call-parser = 'lama3_json'", ["did you mean 'llama3_json'?"]),
    ],
)
def test_a_bad_configuration_file_is_one_line(
    tmp_path: Path,
    toml: str,
    says: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(toml)
    line = failure("serve", "--config", str(file), monkeypatch=monkeypatch, capsys=capsys)
    for part in says:
        assert part in line


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (b"{% if %}", "line 1: "),
        (b"\n\n{{ oops", "line 3: "),
        (b"{{ messages.a.b }}", "can't render a simple message"),
        (b"{{ no_such_function() }}", "can't render a simple message"),
        (b"\xff", "can't be read"),
    ],
)
def test_a_bad_chat_template_is_refused_before_the_model_loads(
    tmp_path: Path,
    template: bytes,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "chat.jinja"
    file.write_bytes(template)
    line = failure("serve", "--chat-template", str(file), monkeypatch=monkeypatch, capsys=capsys)
    assert line.startswith(f"--chat-template {file}")
    assert says in line


def test_a_busy_port_is_refused_before_the_model_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = failure("serve", "--port", str(port), monkeypatch=monkeypatch, capsys=capsys)
    assert line == f"--port {port} on localhost is in use; choose another, or 0 for a free one"


POSIX_ONLY = ("fcntl", "resource", "termios", "pwd", "grp", "uvloop")
ON_WINDOWS = f"""
import subprocess
import sys
for module in {POSIX_ONLY}:
    sys.modules[module] = None
from fllm_api.cli import main
sys.platform = "win32"
main()
"""


def test_windows_is_refused_in_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", ON_WINDOWS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2,
        "furiosa-llm: error: Windows is not supported: use WSL 2 or a container (docs/install.md)\n",
    )
