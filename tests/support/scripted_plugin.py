"""A backend that replays a script: ``--plugin scripted_plugin.py --backend scripted``."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

import fllm

ASSISTANT = "<|im_start|>assistant"


class Outputs:
    """The outputs of ``script.json``: one for any prompt, or the turns of conversations.

    The tools in the prompt name the conversation, and the assistant's messages in it are the turns before. A
    prompt without tools gets the output of ``plain``.
    """

    def __init__(self, directory: Path) -> None:
        self._script: Any = json.loads((directory / "script.json").read_text())
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        plain = self._script if isinstance(self._script, list) else self._script["plain"]
        self.eos_token_id: int = plain[-1]
        self.has_conversations = not isinstance(self._script, list)

    def next(self, prompt: list[int]) -> list[int]:
        """Return the token ids that follow a prompt."""
        if not self.has_conversations:
            return self._script
        text = self._tokenizer.decode(prompt, skip_special_tokens=False)
        if "<tools>" not in text:
            return self._script["plain"]
        for tool, turns in self._script["conversations"].items():
            if f'"name": "{tool}"' in text:
                after, token_ids = turns[text.count(ASSISTANT) - 1]
                if after not in text:
                    raise ValueError(f"the prompt does not have the text {after!r}")
                return token_ids
        raise ValueError("the prompt has no tool of a scripted conversation")


class ScriptedBackend:
    """Emits an output of the model's directory, one token per step."""

    def __init__(self, config: fllm.BackendConfig, context: fllm.BackendContext) -> None:
        self._directory = Path(config.model)
        self._outputs = Outputs(self._directory)
        self._max_model_len = config.max_model_len or 4096

    async def start(self) -> fllm.ModelCard:
        return fllm.ModelCard(
            tokenizer=str(self._directory),
            max_model_len=self._max_model_len,
            eos_token_ids=(self._outputs.eos_token_id,),
            artifact_id="script",
            runtime={"device": "none"},
            # The scripted conversations have calls that are valid, so constraints need no enforcement.
            grammar="llguidance" if self._outputs.has_conversations else None,
        )

    async def generate(self, request: fllm.GenerateRequest) -> AsyncGenerator[fllm.EngineOutput]:
        sampling = request.sampling
        script = self._outputs.next(request.token_ids)
        given = tuple((each, -2.0) for each in sampling.logprob_token_ids)
        for count, token_id in enumerate(script, start=1):
            ends = count == len(script)
            logprob = fllm.TokenLogprob(
                token_id, -0.25, given or ((token_id, -0.25), (0, -2.0))[: sampling.logprobs or 0]
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
