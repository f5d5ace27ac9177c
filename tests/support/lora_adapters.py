"""Make LoRA adapters of tiny models with PEFT, and the models that result from merging them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


def save_adapter(model: Any, directory: Path, *, seed: int = 0, **config: Any) -> Any:
    """Write a random adapter of transformers' model to the directory. Return the model merged with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft

        torch.manual_seed(seed)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION + MLP} | config
        adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**settings))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.normal_(0.0, 0.2)
        adapted.save_pretrained(directory)
        return adapted.merge_and_unload().eval()
