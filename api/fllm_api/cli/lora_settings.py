"""Read the LoRA adapters of ``furiosa-llm serve`` from its options."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fllm.config import LoraAdapter
from fllm.errors import ConfigError
from fllm_api.cli.param_types import LoraModule


def lora_adapters(options: Mapping[str, Any], model_names: Sequence[str]) -> tuple[LoraAdapter, ...]:
    """Return the adapters of ``--lora-modules``. Raise `ConfigError` if a name is not unique."""
    modules: Sequence[LoraModule] = options["lora_modules"]
    names = Counter([*model_names, *(module.name for module in modules)])
    for module in modules:
        if names[module.name] > 1:
            raise ConfigError(
                f"--lora-modules: {module.name!r} is the name of another adapter or of the model; "
                "each needs a name of its own"
            )
    limit = options["max_cpu_loras"]
    if len(modules) > limit:
        raise ConfigError(f"--lora-modules has {len(modules)} adapters, and --max-cpu-loras is {limit}")
    return tuple(
        LoraAdapter(
            id=number,
            name=module.name,
            path=os.path.abspath(os.path.expanduser(module.path)),
            base_model_name=module.base_model_name,
        )
        for number, module in enumerate(modules, 1)
    )


def lora_dirs(options: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the directories of ``--lora-dir``. Raise `ConfigError` if they have no effect, or lack."""
    enabled, directories = options["enable_runtime_lora_loading"], options["lora_dir"]
    if enabled and not directories:
        raise ConfigError(
            "--enable-runtime-lora-loading requires --lora-dir DIRECTORY: requests may load adapters only "
            "from there"
        )
    if directories and not enabled:
        raise ConfigError("--lora-dir requires --enable-runtime-lora-loading")
    return tuple(directories)
