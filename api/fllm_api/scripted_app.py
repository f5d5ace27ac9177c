"""The application over an engine that a test provides, for `fllm.testing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litestar import Litestar

from fllm.chat import ChatTemplate, control_tokens
from fllm.errors import PluginError
from fllm.interfaces import Backend, Collector
from fllm.plugins.loader import Plugins
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard
from fllm_api.api_keys import ApiKeys
from fllm_api.app import create_app
from fllm_api.app_state import AppState
from fllm_api.config import RateLimits, ServerConfig
from fllm_api.sample_recorder import SampleRecorder

MODEL = "scripted"
"""Name of the model."""


def create_scripted_app(
    plugins: Plugins,
    backend: Backend,
    card: ModelCard,
    tokenizer: Tokenizer,
    template: str,
    *,
    parsers: Mapping[str, Any],
    collectors: Sequence[Collector],
    settings: Mapping[str, Any],
) -> Litestar:
    """Return the application for a backend that is started. Raise `PluginError` if a route is left out.

    ``settings`` are fields of `ServerConfig`, and ``api_keys``; ``limits`` is a mapping.
    """
    given = dict(settings)
    keys: Sequence[str] = given.pop("api_keys", ())
    limits: Mapping[str, Any] = given.pop("limits", {})
    config = ServerConfig(
        **{"served_model_name": MODEL, "keys": ApiKeys(keys), "limits": RateLimits(**limits), **given}
    )
    app = create_app(
        AppState(
            config=config,
            plugins=plugins,
            backend=backend,
            backend_name=MODEL,
            card=card,
            tokenizer=tokenizer,
            template=ChatTemplate.compile(
                {"default": template}, special_tokens={}, control_tokens=control_tokens(tokenizer)
            ),
            collectors=collectors,
            recorder=None if config.record is None else SampleRecorder(config.record),
            **parsers,
        )
    )
    for report in plugins.reports:
        if report.error:
            raise PluginError(f"{report.name}: {report.error}")
    return app
