"""The example of a configuration file, and the options of other servers."""

from __future__ import annotations

import re
from pathlib import Path

from fllm_api.cli.loaded_plugins import plugin_config, plugins_of
from fllm_api.cli.options import SERVE_PARAMS
from fllm_api.cli.options.other_servers import INSTEAD
from fllm_api.cli.serve import serve
from fllm_api.cli.settings import settings_from_options

PAGE = Path(__file__).parents[2].joinpath("docs", "operations.md").read_text()
OWN = {name for param in SERVE_PARAMS for name in (*param.opts, *param.secondary_opts)}


def test_the_example_of_a_configuration_file_sets_what_it_says(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(# server.toml.*?)```", PAGE, re.DOTALL)
    assert found
    keys = tmp_path / "keys"
    keys.write_text("sk-1\n")
    (tmp_path / "config.json").write_text("{}")
    text = found[1].replace("/etc/furiosa-llm/keys", str(keys)).replace("/models/Qwen3-0.6B", str(tmp_path))
    file = tmp_path / "server.toml"
    file.write_text(text)
    with serve.make_context("serve", ["--config", str(file)]) as ctx:
        plugins_of(ctx).check_options()
        made = settings_from_options(ctx.params, plugins_of(ctx), plugin_config(ctx))
    assert made.server.limits.tokens_per_minute == 20000
    assert made.server.allowed_origins == ("https://app.example.org", "localhost")
    assert made.backend_config.options == {"kv_cache_memory": "2GiB"}
    assert made.sampling_overrides.temperature == 0.2


def test_hints_are_for_options_that_are_not_there_and_name_those_that_are() -> None:
    assert not OWN.intersection(INSTEAD)
    for name, hint in INSTEAD.items():
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", hint)) - {"--version"}
        assert used <= OWN, name
