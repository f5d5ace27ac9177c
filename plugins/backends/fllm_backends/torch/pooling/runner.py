"""A `PoolingRunner` on torch. Importing this module is cheap: torch is imported by `load`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fllm.batching import PoolingRow, check_length
from fllm.config import Device
from fllm.values import ModelCard, PoolingCard, Progress
from fllm_backends.checkpoints.decoder_config import MAX_POSITIONS
from fllm_backends.checkpoints.download import count_values, fetch_model
from fllm_backends.checkpoints.json_files import read_object
from fllm_backends.checkpoints.pooling_config import (
    Activation,
    PoolingConfig,
    PoolingMode,
    read_pooling_config,
)
from fllm_backends.checkpoints.tokenizer_files.directory import tokenizer_directory
from fllm_backends.torch.hardware import check_fits, num_threads, torch_device
from fllm_backends.torch.options import TorchConfig

if TYPE_CHECKING:
    from torch import Tensor

    from fllm_backends.torch.pooling.head import Dense
    from fllm_backends.torch.pooling.model import Encoder

STEP_OPERATIONS = 2e11
"""Products of weights and tokens that one step on a CPU may have: about half a second on two cores."""
MIN_TOKENS, MAX_TOKENS, CUDA_TOKENS = 256, 8192, 32768
"""Bounds of the tokens of one step on a CPU, and their number on CUDA."""
DEFAULT_LENGTH = 2048
"""Maximum number of tokens of a model that names none, as in vLLM."""
DEFAULT_REQUESTS = 256
"""Requests that are in progress at once, if ``--max-num-seqs`` does not set it."""


class TorchPoolingRunner:
    """Runs a model of transformers that pools on one device."""

    _encoder: Encoder
    _dense: Dense

    def __init__(
        self, config: TorchConfig, device: Device, max_tokens: int | None, max_requests: int | None
    ) -> None:
        self._config = config
        self._device = device
        self._max_tokens = max_tokens
        self._max_requests = max_requests or DEFAULT_REQUESTS

    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        """Fetch the model and load its weights. Raise `UserError`."""
        import torch

        from fllm_backends.torch.pooling.head import Dense
        from fllm_backends.torch.pooling.model import default_mode, load_encoder, max_positions, read_config

        device = torch_device(self._device)
        if device.type == "cpu":
            torch.set_num_threads(self._config.threads or num_threads(self._config.local_engines))
        dtype = self._dtype()
        model = fetch_model(
            self._config.source,
            revision=self._config.revision,
            weights=not self._config.dummy,
            progress=progress,
            check=read_pooling_config,
        )
        self._pooling = pooling = read_pooling_config(model.directory)
        config = read_config(model.directory)
        progress(Progress("Loading weights", 0, 1))
        if not self._config.dummy:
            size = count_values(model.directory) * getattr(torch, dtype).itemsize
            check_fits(size, 0, dtype, device)
        self._encoder = load_encoder(
            model.directory,
            config,
            classifies=pooling.classifies,
            dtype=getattr(torch, dtype),
            device=device,
            dummy=self._config.dummy,
        )
        progress(Progress("Loading weights", 1, 1))
        self._modes: tuple[PoolingMode, ...] = pooling.modes or (default_mode(config),)
        self._dense = Dense(pooling.layers, len(self._modes) * config.hidden_size, device)
        length = _max_length(model.directory, pooling, max_positions(self._encoder))
        check_length(length, self._config.max_model_len)
        return ModelCard(
            tokenizer=str(tokenizer_directory(model.directory)),
            max_model_len=self._config.max_model_len or length,
            artifact_id=model.artifact_id,
            pooling=self._card(),
            runtime={
                "runner": "pooling",
                "architecture": type(self._encoder.model).__name__,
                "vocab_size": config.vocab_size,
                "device": str(device),
                "dtype": dtype,
                "torch": str(torch.__version__),
                "pooling": None if pooling.classifies else list(self._modes),
                "max_num_seqs": self._max_requests,
                "max_num_batched_tokens": self._max_tokens or self._default_tokens(),
            }
            | ({"threads": torch.get_num_threads()} if device.type == "cpu" else {}),
        )

    def pool(self, rows: Sequence[PoolingRow]) -> Sequence[bytes]:
        """Return the vectors of one batch."""
        import torch

        from fllm_backends.torch.pooling.head import pool

        with torch.inference_mode():
            states, lengths = self._encoder.forward([row.input for row in rows])
            if not self._pooling.classifies:
                states = self._dense(pool(states, lengths, self._modes))
            vectors = states.float()
            return [
                self._finish(vector, row).cpu().numpy().astype("<f4").tobytes()
                for vector, row in zip(vectors, rows, strict=True)
            ]

    def _finish(self, vector: Tensor, row: PoolingRow) -> Tensor:
        """Return the embedding, cut and normalised, or the classes after the activation."""
        from torch.nn.functional import normalize

        from fllm_backends.torch.pooling.head import ACTIVATIONS

        if self._pooling.classifies:
            if row.activation is False:
                return vector
            default: Activation = "sigmoid" if len(vector) == 1 else "softmax"
            return ACTIVATIONS[self._pooling.activation or default](vector)
        if row.dimensions is not None:
            vector = vector[: row.dimensions]
        normalized = self._pooling.normalize if row.activation is None else row.activation
        return normalize(vector, dim=0, eps=1e-12) if normalized else vector

    def close(self) -> None:
        """Release the weights."""
        self.__dict__.pop("_encoder", None)

    def _card(self) -> PoolingCard:
        pooling, config = self._pooling, self._encoder.config
        names = config.id2label if pooling.classifies else {}
        labels = tuple(str(names.get(i, f"LABEL_{i}")) for i in range(config.num_labels if names else 0))
        return PoolingCard(
            task="classify" if pooling.classifies else "embed",
            size=len(labels) if pooling.classifies else self._dense.size,
            matryoshka=pooling.matryoshka or self._config.matryoshka,
            labels=labels,
            prompts=pooling.prompts,
            default_prompt_name=pooling.default_prompt_name,
            lowercase=pooling.lowercase,
        )

    def _dtype(self) -> str:
        if self._config.dtype != "auto":
            return self._config.dtype
        return "float32" if self._device.kind == "cpu" else "bfloat16"

    def _default_tokens(self) -> int:
        if self._device.kind != "cpu":
            return CUDA_TOKENS
        return int(min(max(STEP_OPERATIONS / self._encoder.parameters, MIN_TOKENS), MAX_TOKENS))


def _max_length(directory: Path, pooling: PoolingConfig, positions: int) -> int:
    """Return the maximum number of tokens of an input: Sentence Transformers', else the tokenizer's.

    ``positions`` is the model's own maximum; 0: it has none.
    """
    length: Any = pooling.max_length
    if length is None:
        length = read_object(directory / "tokenizer_config.json").get("model_max_length")
    named = int(length) if isinstance(length, int | float) and 1 <= length <= MAX_POSITIONS else 0
    return min(filter(None, (named, positions)), default=DEFAULT_LENGTH)
