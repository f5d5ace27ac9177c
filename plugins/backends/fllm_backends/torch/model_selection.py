"""Select the code that computes a model: a decoder of this project, or a class of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fllm.errors import ConfigError
from fllm_backends.checkpoints.architecture import Architecture, read_architecture
from fllm_backends.checkpoints.image_processor_files import has_image_processor
from fllm_backends.checkpoints.quantized.config import read_quantization
from fllm_backends.checkpoints.rope_config import UnsupportedModelError
from fllm_backends.torch.options import TorchConfig

if TYPE_CHECKING:
    from fllm_backends.torch.transformers_lm.model_class import TransformersModel


def read_model(directory: Path, config: TorchConfig) -> Architecture | TransformersModel:
    """Read what serves a model directory, from its ``config.json``. Raise `UserError` if nothing does.

    ``--model-impl auto`` selects our own decoder if it supports the model, which takes only text. So a
    directory with an image processor is left to transformers, which is only imported if it is selected.
    """
    reads_images = config.model_impl == "auto" and not config.dummy and has_image_processor(directory)
    if config.model_impl != "transformers" and not reads_images:
        try:
            return read_architecture(directory)
        except UnsupportedModelError:
            if config.model_impl == "native":
                raise
    from fllm_backends.torch.transformers_lm.model_class import read_transformers_model

    model = read_transformers_model(directory)
    if model.recurrent and config.drafts:
        raise ConfigError(
            f"--speculative-config: {model.name} keeps a state for each sequence, from which drafts can't be "
            "taken back; leave it out"
        )
    return model


def check_model(directory: Path, config: TorchConfig) -> None:
    """Check the class and the quantization of a model by its configuration. Raise `UserError`."""
    model = read_model(directory, config)
    check_division(model, config.tensor_parallel_size)
    read_quantization(directory)


def check_division(model: Architecture | TransformersModel, size: int) -> None:
    """Raise `ConfigError` if the weights of a model can't be divided among ``size`` ranks."""
    if size == 1:
        return
    if isinstance(model, Architecture):
        from fllm_backends.torch.division import check_cut

        check_cut(model, size)
    else:
        from fllm_backends.torch.transformers_lm.plan import check_plan

        check_plan(model, size)
