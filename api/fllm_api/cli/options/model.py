"""Options of the model, of several models and of LoRA adapters."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import get_args

import rich_click as click

from fllm.config import LoadFormat, ModelImpl, Runner
from fllm_api.cli.options.values import FILE, POSITIVE, SECONDS
from fllm_api.cli.param_types import (
    MODEL_SAMPLING,
    GenerationConfig,
    Integer,
    KeyValue,
    LoraModules,
    NonEmptyText,
    SamplingJson,
    Size,
)

DTYPES = ("auto", "float16", "bfloat16", "float32", "half", "float")

_model = partial(click.RichOption, panel="Model")
_models = partial(click.RichOption, panel="Several models")
_lora = partial(click.RichOption, panel="LoRA adapters")

MODEL = click.RichArgument(
    ["model"],
    required=False,
    envvar="FURIOSA_LLM_MODEL",
    help="Directory, .gguf file or Hugging Face Hub id. Default: the embedded model.",
)
MODEL_OPTIONS = [
    _model(["--revision"], metavar="TEXT", help="Branch, tag or commit of a Hub model."),
    _model(
        ["--served-model-name"],
        type=NonEmptyText(),
        multiple=True,
        show_default="MODEL",
        help="Model name in /v1/models. Repeat it for more names. Responses contain the first one.",
    ),
    _model(
        ["--runner"],
        type=click.Choice(get_args(Runner)),
        default="auto",
        help="generate: text. pooling: embeddings, scores, classes. auto: what the model's files declare.",
    ),
    _model(
        ["--load-format"],
        type=click.Choice(get_args(LoadFormat)),
        default="auto",
        help="Format of the weights. dummy: random weights for the model's configuration, to try its speed.",
    ),
    _model(
        ["--model-impl"],
        type=click.Choice(get_args(ModelImpl)),
        default="auto",
        help="Code that computes the model: native, or that of transformers. auto: native if it can.",
    ),
    _model(
        ["--dtype"], type=click.Choice(DTYPES), default="auto", help="Data type of weights and activations."
    ),
    _model(
        ["--quantization"],
        type=NonEmptyText(),
        show_default="by model",
        help="none, or a method of the backend, such as int8 or fp8. An unknown one lists them.",
    ),
    _model(["--max-model-len"], type=POSITIVE, help="Maximum number of tokens in prompt and output."),
    _model(
        ["--generation-config"],
        type=GenerationConfig(),
        default=MODEL_SAMPLING,
        help="Sampling defaults of requests. auto: those of the model. vllm: neutral ones, temperature 1. "
        "Or a directory with generation_config.json, or such a file.",
    ),
    _model(
        ["--override-generation-config"],
        type=SamplingJson(),
        help='Single sampling defaults, such as {"temperature": 0.2, "max_new_tokens": 1000}.',
    ),
    _model(
        ["--seed"],
        type=Integer(min=0),
        help="Seed of requests without one, and of dummy weights. By default requests differ.",
    ),
]
SEVERAL_MODELS_OPTIONS = [
    _models(
        ["--models"],
        type=FILE,
        show_default="none",
        help="TOML file with [[models]]: name, source and options of each. They are loaded on demand.",
    ),
    _models(
        ["model_sources", "--model"],
        type=KeyValue("NAME=SOURCE", "; one model needs no option: furiosa-llm serve MODEL"),
        multiple=True,
        show_default="none",
        help="Name and source of a model that is loaded on demand. Repeat it for more models.",
    ),
    _models(["--strict-model-name"], is_flag=True, help="Reject unknown names if there is one model, too."),
    _models(
        ["--memory-budget"],
        type=Size(),
        show_default="no limit",
        help="Memory for all loaded models, such as 4GiB. The least recently used make room.",
    ),
    _models(
        ["--pin"],
        type=NonEmptyText(),
        multiple=True,
        show_default="none",
        help="Name of a model that is loaded at the start and stays loaded.",
    ),
    _models(
        ["--model-idle-timeout"],
        type=SECONDS,
        default=0.0,
        help="Seconds without a request after which a model sleeps: it is unloaded. 0: never.",
    ),
]
LORA_OPTIONS = [
    _lora(
        ["--lora-modules"],
        type=LoraModules(),
        multiple=True,
        show_default="none",
        help="LoRA adapters: NAME=DIRECTORY, or JSON with name, path and base_model_name. "
        "Requests choose one by its name, as their model.",
    ),
    _lora(["--enable-lora"], is_flag=True, help="Implied by the other options."),
    _lora(
        ["--max-loras"],
        type=POSITIVE,
        show_default="no maximum",
        help="Maximum number of different adapters in one step.",
    ),
    _lora(["--max-cpu-loras"], type=POSITIVE, default=64, help="Maximum number of adapters loaded at once."),
    _lora(["--max-lora-rank"], type=POSITIVE, default=512, help="Largest rank of an adapter."),
    _lora(
        ["--enable-runtime-lora-loading"],
        is_flag=True,
        envvar=["FURIOSA_LLM_ENABLE_RUNTIME_LORA_LOADING", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"],
        help="Offer /v1/load_lora_adapter and /v1/unload_lora_adapter. Every client may use them.",
    ),
    _lora(
        ["--lora-dir"],
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        multiple=True,
        show_default="none",
        help="Directory that /v1/load_lora_adapter may load adapters from.",
    ),
]
