"""Which clients share the prefix cache, by options and backend."""

from __future__ import annotations

import logging

import pytest

from fllm.errors import ConfigError
from fllm.values import ModelCard
from fllm_api.api_keys import ApiKeys
from fllm_api.cli.model_state import isolates_clients
from fllm_api.config import PrefixCacheIsolation, ServerConfig

NO_KEYS, ONE, TWO = (ApiKeys(keys) for keys in ((), ("a",), ("a", "b")))


def isolates(keys: ApiKeys, isolation: PrefixCacheIsolation | None, *, supported: bool = True) -> bool:
    config = ServerConfig(served_model_name="m", keys=keys, prefix_cache_isolation=isolation)
    return isolates_clients(config, ModelCard(tokenizer="", max_model_len=1, supports_cache_salt=supported))


@pytest.mark.parametrize(
    ("keys", "isolation", "expected"),
    [(NO_KEYS, None, False), (ONE, None, True), (TWO, None, True), (TWO, "none", False), (TWO, "key", True)],
)
def test_clients_are_isolated_by_default_if_there_are_keys(
    keys: ApiKeys, isolation: PrefixCacheIsolation | None, expected: bool
) -> None:
    assert isolates(keys, isolation) is expected


def test_a_backend_that_cannot_isolate_logs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not isolates(TWO, None, supported=False)
    assert "can't keep the prefix caches of clients apart" in caplog.text


def test_a_backend_that_cannot_isolate_contradicts_the_option() -> None:
    with pytest.raises(ConfigError, match="--prefix-cache-isolation key: this backend"):
        isolates(TWO, "key", supported=False)


@pytest.mark.parametrize(("keys", "isolation"), [(TWO, "none"), (NO_KEYS, None)])
def test_without_isolation_the_backend_does_not_matter(
    keys: ApiKeys, isolation: PrefixCacheIsolation | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert not isolates(keys, isolation, supported=False)
    assert not caplog.text
