"""Load a model's class from transformers, and compute the hidden states or the logits of a padded batch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto import modeling_auto as auto
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from fllm.containment import mapped
from fllm.errors import FllmError, ModelError, format_error
from fllm.values import PoolingInput
from fllm_backends.checkpoints.pooling_config import PoolingMode
from fllm_backends.torch.checkpoint import Checkpoint
from fllm_backends.torch.hardware import out_of_memory


class Encoder:
    """A model of transformers without a language-model head."""

    def __init__(self, model: Any, config: Any, device: torch.device) -> None:
        self.config = config
        self._score = dict(model.named_children()).get("score")
        """Decoders compute the classes from the last token, with this layer."""
        self.model: Any = model if self._score is None else model.base_model
        self._parameters = inspect.signature(self.model.forward).parameters
        self._device = device
        pad = config.pad_token_id
        self._pad = pad if isinstance(pad, int) and 0 <= pad < config.vocab_size else 0

    @property
    def parameters(self) -> int:
        """Number of weights that each token is multiplied with: all but the embeddings."""
        tables = [each for each in self.model.modules() if isinstance(each, nn.Embedding)]
        total: int = sum(each.numel() for each in self.model.parameters())
        return total - sum(each.weight.numel() for each in tables)

    def forward(self, inputs: Sequence[PoolingInput]) -> tuple[Tensor, Tensor]:
        """Return hidden states [batch, length, hidden] or logits [batch, classes], and the lengths."""
        lengths = torch.tensor([len(each.token_ids) for each in inputs], device=self._device)
        longest = int(lengths.max())
        ids = [each.token_ids + [self._pad] * (longest - len(each.token_ids)) for each in inputs]
        mask = torch.arange(longest, device=self._device) < lengths[:, None]
        arguments = {"input_ids": torch.tensor(ids, device=self._device), "attention_mask": mask.long()}
        if "token_type_ids" in self._parameters:
            arguments["token_type_ids"] = self._token_types(inputs, longest)
        output = self.model(**arguments)
        if self._score is not None:
            return self._score(last_token(output.last_hidden_state, lengths)), lengths
        return (output.logits if "logits" in output else output.last_hidden_state), lengths

    def _token_types(self, inputs: Sequence[PoolingInput], longest: int) -> Tensor:
        """Return 1 for the tokens of the second text of a pair, if the model has two types."""
        types = torch.zeros(len(inputs), longest, dtype=torch.long, device=self._device)
        if self.config.type_vocab_size > 1:
            for row, each in enumerate(inputs):
                if each.second_at is not None:
                    types[row, each.second_at : len(each.token_ids)] = 1
        return types


def last_token(hidden: Tensor, lengths: Tensor) -> Tensor:
    """Return the state of the last token of each row [batch, hidden]."""
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]


def read_config(directory: Path) -> Any:
    """Read ``config.json`` with transformers, without code of the model. Raise `ModelError`."""
    set_verbosity_error()  # type: ignore[no-untyped-call]
    with _mapped(directory):
        return transformers.AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )


def load_encoder(
    directory: Path, config: Any, *, classifies: bool, dtype: torch.dtype, device: torch.device, dummy: bool
) -> Encoder:
    """Load the class that the configuration names. Raise `ModelError`."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    kind = model_class(directory, config, classifies=classifies)
    config.use_cache = False
    attention = "sdpa" if kind._supports_sdpa else "eager"
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    if "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
        options["add_pooling_layer"] = False  # of BERT's training objective; published weights may lack it
    message = f"the weights of {directory} do not fit into the memory of {device}"
    with _mapped(directory), out_of_memory(message):
        if dummy:
            model = kind._from_config(config, **options)
        else:
            model = _load(kind, config, Checkpoint(directory), directory, options)
        return Encoder(model.to(device).eval(), config, device)


def _load(
    kind: Any, config: Any, checkpoint: Checkpoint, directory: Path, options: dict[str, Any]
) -> nn.Module:
    """Create a model from the tensors of a checkpoint, which stay in its file if the type is the same."""
    tensors = {name: checkpoint.read(name, options["dtype"]) for name in checkpoint}
    if hasattr(config, "quantization_config"):  # the weights are dequantized
        del config.quantization_config
    model, report = kind.from_pretrained(
        None, config=config, state_dict=tensors, output_loading_info=True, **options
    )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"the weights in {directory} lack {missing[0]!r}")
    loaded: nn.Module = model
    return loaded


def model_class(directory: Path, config: Any, *, classifies: bool) -> Any:
    """Return the class of transformers for a configuration. Raise `ModelError` if there is none."""
    mapping = auto.MODEL_MAPPING
    if classifies:
        mapping = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    elif type(config) in auto.MODEL_FOR_TEXT_ENCODING_MAPPING:  # of T5, the encoder alone
        mapping = auto.MODEL_FOR_TEXT_ENCODING_MAPPING
    if type(config) not in mapping:
        what = "classification" if classifies else "embeddings"
        raise ModelError(
            f"{directory}: transformers has no class for {what} of the type {config.model_type!r}"
        )
    return mapping[type(config)]


def default_mode(config: Any) -> PoolingMode:
    """Return the pooling of a model whose files name none, as vLLM: that of its class."""
    if type(config) in auto.MODEL_FOR_MASKED_LM_MAPPING:
        return "cls"
    both_ways = getattr(config, "use_bidirectional_attention", False)
    return "mean" if both_ways or type(config) in auto.MODEL_FOR_TEXT_ENCODING_MAPPING else "lasttoken"


def max_positions(model: Encoder) -> int:
    """Return the number of tokens for which the model has positions; 0 if it needs none."""
    config = model.config
    positions: int = getattr(config, "max_position_embeddings", None) or 0
    for name, module in model.model.named_modules():
        # RoBERTa's positions begin after the padding index.
        if (
            name.endswith("position_embeddings")
            and isinstance(module, nn.Embedding)
            and module.padding_idx is not None
        ):
            positions = min(positions, module.num_embeddings - module.padding_idx - 1)
    return positions


def _mapped(directory: Path) -> Any:
    return mapped(
        lambda error: ModelError(f"{directory} can't be loaded: {format_error(error)[:500]}"),
        passing=(FllmError,),
    )
