"""OpenVINO GenAI: its continuous batching, behind our small server."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .pipeline_peer import PipelinePeer

SCHEDULER = {"max_num_seqs": 64, "max_num_batched_tokens": 512, "enable_prefix_caching": True}
PRECISIONS = {
    "int8": "weights int8, one scale a row (NNCF)",
    "int4": "weights int4, one scale and zero point for 32 (NNCF), embedding and head int8",
    "file": "weights as its own GGUF reader rounds the file's",
}
ROUNDING: dict[str, dict[str, Any]] = {
    "int8": {"mode": "int8_asym", "group_size": 0},
    "int4": {"mode": "int4_asym", "group_size": 32},
    "file": {"mode": "", "group_size": 0},
}
"""What NNCF does; it works on the file's weights in float16."""


class OpenVinoGenAI(PipelinePeer):
    """OpenVINO GenAI with one model.

    ``int8`` is the default of NNCF and optimum, made from the file's weights in float16. ``file`` is exact
    for Q4_0. In Q4_1 and Q4_K, a block's minimum becomes a zero point: it is rounded to a multiple of the
    scale, which costs much quality.
    """

    kind = "openvino-genai"
    formats = ("int8", "int4", "file")
    engine = "peers.openvino_engine"
    packages = ("openvino-genai", "nncf")

    @property
    def precision(self) -> str:
        """Describe the numbers that it computes with."""
        if self.setup.avx2:
            return f"{PRECISIONS[self.form]}; activations float32; KV cache u8"
        return f"{PRECISIONS[self.form]}; activations bfloat16, and int8 in matrix products; KV cache u8"

    def convert(self, target: Path) -> None:
        """Make its model in a new directory. Raise `Unavailable`."""
        from .weights import write_float16

        rounding = ROUNDING[self.form]
        with TemporaryDirectory(dir=self.setup.directory) as folder:
            file = Path(folder, "model.gguf")
            if rounding["mode"]:
                write_float16(self.setup.gguf, file)
            else:
                file.symlink_to(self.setup.gguf.resolve())
            places = {"gguf": str(file), "directory": str(target)}
            self.environment.run(self.engine, "convert", {**places, **rounding})

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of its engine's commands."""
        properties: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": self.setup.threads,
            "KV_CACHE_PRECISION": "u8",  # its default, which a model's file may change
        }
        if self.setup.avx2:  # without VNNI, it rounds no activations; it tests this by cpuid
            properties |= {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        return {"model": str(self.model), "properties": properties, "scheduler": SCHEDULER}

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables that limit its matrix products. Its attention still selects code by cpuid."""
        return {"ONEDNN_MAX_CPU_ISA": "AVX2"} if self.setup.avx2 else {}
