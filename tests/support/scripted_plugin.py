"""A backend that replays a script: ``--plugin scripted_plugin.py --backend scripted``."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import fllm


class ScriptedBackend:
    """Emits the ids of ``script.json`` in the model's directory, one per step, for any prompt."""

    def __init__(self, config: fllm.BackendConfig, context: fllm.BackendContext) -> None:
        self._directory = Path(config.model)
        self._script: list[int] = json.loads((self._directory / "script.json").read_text())
        self._max_model_len = config.max_model_len or 4096

    async def start(self) -> fllm.ModelCard:
        return fllm.ModelCard(
            tokenizer=str(self._directory),
            max_model_len=self._max_model_len,
            eos_token_ids=(self._script[-1],),
            artifact_id="script",
            runtime={"device": "none"},
        )

    async def generate(self, request: fllm.GenerateRequest) -> AsyncGenerator[fllm.EngineOutput]:
        sampling = request.sampling
        for count, token_id in enumerate(self._script, start=1):
            ends = count == len(self._script)
            logprob = fllm.TokenLogprob(
                token_id, -0.25, ((token_id, -0.25), (0, -2.0))[: sampling.logprobs or 0]
            )
            yield fllm.EngineOutput(
                token_ids=[token_id],
                logprobs=[logprob] if sampling.logprobs is not None else None,
                finish_reason="stop" if ends else "length" if count == sampling.max_tokens else None,
                stop_token=token_id if ends else None,
            )
            if count == sampling.max_tokens:
                return

    async def status(self) -> fllm.EngineStats:
        return fllm.EngineStats()

    async def stop(self) -> None:
        pass


@fllm.hookimpl
def fllm_backends() -> Iterable[fllm.BackendEntry]:
    yield fllm.BackendEntry("scripted", f"{__name__}:ScriptedBackend", "Replays a script.")
