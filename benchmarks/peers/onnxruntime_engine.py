"""ONNX Runtime GenAI's engine. It runs in its environment."""

from __future__ import annotations

import json
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as genai

from peers.server import Output, Request, run

EVENTS = 64
"""Most events of a step: one for each request of a batch."""


class OnnxRuntimeEngine:
    """The engine with its step taken from outside."""

    def __init__(self, model: genai.Model) -> None:
        self._model = model
        self._turns: dict[Request, tuple[Any, int]] = {}

    @cached_property
    def _engine(self) -> genai.Engine:
        """Create the engine in the thread that uses it; it refuses calls from others."""
        return genai.Engine(self._model)

    @cached_property
    def _events(self) -> genai.EngineEventBuffer:
        return self._engine.create_event_buffer(EVENTS)

    def add(self, request: Request) -> None:
        """Accept a request for the next step."""
        turn = self._engine.create_request()
        options = genai.TurnOptions(turn)
        options.set_max_generated_tokens(request.max_tokens)
        if request.ignore_eos:
            options.set_min_generated_tokens(request.max_tokens)
        options.set_do_sample(request.temperature > 0)
        if request.temperature > 0:
            options.set_temperature(request.temperature)
        self._turns[request] = turn, turn.begin_turn(np.array(request.ids, np.int32), options)

    def remove(self, request: Request) -> None:
        """Stop to generate for a request whose client has gone."""
        if request in self._turns:
            turn, number = self._turns.pop(request)
            turn.cancel_turn(number)

    def step(self) -> list[Output]:
        """Compute one step; return what it generated. Raise `RuntimeError` if a request can't be served."""
        outputs = []
        for event in self._engine.run(self._events):
            request = next((each for each, (turn, _) in self._turns.items() if turn == event.request), None)
            if request is None:
                continue
            flags = int(event.flags)
            if flags & int(genai.EngineEventFlags.FAILED):
                raise RuntimeError(f"the engine failed: {event.error_code}")
            ids = [event.token] if flags & int(genai.EngineEventFlags.TOKEN) else []
            reason = None
            if flags & int(genai.EngineEventFlags.TURN_FINISHED):
                reason = "stop" if event.finish_reason == genai.FinishReason.EOS else "length"
                self._turns.pop(request)[0].close()
            outputs.append(Output(request, ids, reason))
        return outputs


def load(options: dict[str, Any]) -> genai.Model:
    """Load a model that the model builder wrote, with changes to its settings."""
    config = genai.Config(options["model"])
    config.overlay(json.dumps(options["overlay"]))
    return genai.Model(config)


def serve(options: dict[str, Any]) -> None:
    """Serve a model that the model builder wrote."""
    engine = OnnxRuntimeEngine(load(options))
    run(engine, Path(options["tokenizer"]), options["name"], options["context"], options["port"])


def logits(options: dict[str, Any]) -> None:
    """Write the logits of the scored positions of windows: [windows, positions, vocabulary], float32."""
    model = load(options)
    windows = json.loads(Path(options["windows"]).read_text())
    start, stop = options["positions"]
    rows = None
    for index, window in enumerate(windows):
        parameters = genai.GeneratorParams(model)
        parameters.set_search_options(max_length=len(window))
        generator = genai.Generator(model, parameters)
        generator.append_tokens(np.array(window[:start], np.int32))
        generator.append_tokens(np.array(window[start:stop], np.int32))
        result = generator.get_output("logits")
        if rows is None:
            shape = len(windows), stop - start, result.shape[-1]
            rows = np.lib.format.open_memmap(options["output"], "w+", np.float32, shape)
        rows[index] = result[0]


if __name__ == "__main__":
    {"serve": serve, "logits": logits}[sys.argv[1]](json.loads(sys.argv[2]))
