"""OpenVINO GenAI's continuous batching as an engine. It runs in OpenVINO's environment."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from peers.server import Output, Request, run

CACHE_GB = 2
"""Size of the KV cache in 8 bits: 180,000 tokens of the embedded model, or 120,000 of a Llama 3.2 1B."""
REASONS = {"STOP": "stop", "LENGTH": "length"}


class OpenVinoEngine:
    """The pipeline with its step taken from outside."""

    def __init__(self, model: Path, properties: dict[str, Any], scheduler: dict[str, Any]) -> None:
        configuration = genai.SchedulerConfig()
        for name, value in {"cache_size": CACHE_GB, **scheduler}.items():
            setattr(configuration, name, value)
        self._pipeline = genai.ContinuousBatchingPipeline(str(model), configuration, "CPU", properties, {})
        self._numbers = count()
        self._handles: dict[Request, Any] = {}

    def add(self, request: Request) -> None:
        """Accept a request for the next step."""
        config = genai.GenerationConfig()
        config.max_new_tokens = request.max_tokens
        config.ignore_eos = request.ignore_eos
        config.do_sample = request.temperature > 0
        if config.do_sample:
            config.temperature = request.temperature
        else:
            config.eos_token_id = self._pipeline.get_tokenizer().get_eos_token_id()
        ids = openvino.Tensor(np.array([request.ids], np.int64))
        self._handles[request] = self._pipeline.add_request(next(self._numbers), ids, config)

    def remove(self, request: Request) -> None:
        """Stop to generate for a request whose client has gone."""
        if handle := self._handles.pop(request, None):
            handle.stop()

    def step(self) -> list[Output]:
        """Compute one step; return what it generated."""
        self._pipeline.step()
        outputs = []
        for request, handle in list(self._handles.items()):
            output = self._read(request, handle)
            if output.ids or output.finish_reason:
                outputs.append(output)
            if output.finish_reason:
                del self._handles[request]
        return outputs

    def _read(self, request: Request, handle: Any) -> Output:
        ids: list[int] = []
        reason = None
        while handle.can_read():
            for result in handle.read().values():
                ids += result.generated_ids
                reason = REASONS.get(result.finish_reason.name)
        if not reason and handle.get_status() != genai.GenerationStatus.RUNNING:
            reason = "stop"
        return Output(request, ids, reason)


def serve(options: dict[str, Any]) -> None:
    """Serve a directory with a model in OpenVINO's format, or a GGUF file."""
    engine = OpenVinoEngine(Path(options["model"]), options["properties"], options["scheduler"])
    run(engine, Path(options["tokenizer"]), options["name"], options["context"], options["port"])


def convert(options: dict[str, Any]) -> None:
    """Write a GGUF file in OpenVINO's format as GenAI reads it, then with weights as NNCF rounds them.

    GenAI writes its files next to the GGUF file.
    """
    import nncf

    gguf, target = Path(options["gguf"]), Path(options["directory"])
    genai.LLMPipeline(str(gguf), "CPU", enable_save_ov_model=True)
    if options["mode"]:
        whole = openvino.Core().read_model(gguf.parent / "openvino_model.xml")
        mode = nncf.CompressWeightsMode(options["mode"])
        size = {"group_size": options["group_size"]} if options["group_size"] else {}
        model = nncf.compress_weights(whole, mode=mode, **size)
        openvino.save_model(model, target / "openvino_model.xml")
    for file in gguf.parent.glob("openvino_*"):
        if not (target / file.name).exists() and not (options["mode"] and file.stem == "openvino_model"):
            shutil.move(file, target / file.name)


def logits(options: dict[str, Any]) -> None:
    """Write the logits of the scored positions of windows: [windows, positions, vocabulary], float32.

    The first half of a window is computed before the second, which so reads keys and values from the cache.
    """
    model = openvino.Core().compile_model(
        str(Path(options["model"]) / "openvino_model.xml"), "CPU", options["properties"]
    )
    windows = np.array(json.loads(Path(options["windows"]).read_text()), np.int64)
    start, stop = options["positions"]
    rows = None
    for index, window in enumerate(windows):
        request = model.create_infer_request()
        for first, last in ((0, start), (start, stop)):
            result = request.infer(
                {
                    "input_ids": window[None, first:last],
                    "attention_mask": np.ones((1, last), np.int64),
                    "position_ids": np.arange(first, last)[None],
                    "beam_idx": np.zeros(1, np.int32),
                }
            )["logits"]
        if rows is None:
            shape = len(windows), stop - start, result.shape[-1]
            rows = np.lib.format.open_memmap(options["output"], "w+", np.float32, shape)
        rows[index] = result[0]


if __name__ == "__main__":
    {"serve": serve, "convert": convert, "logits": logits}[sys.argv[1]](json.loads(sys.argv[2]))
