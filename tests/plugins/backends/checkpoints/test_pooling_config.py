"""Files that say how a model pools: which models do, what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fllm.errors import ModelError
from fllm_backends.checkpoints.pooling_config import (
    DenseLayer,
    PoolingConfig,
    model_pools,
    read_pooling_config,
)

LEGACY = "sentence_transformers.models."


def write(directory: Path, **files: Any) -> Path:
    """Write JSON files; ``__`` in a name is a slash."""
    for name, content in files.items():
        path = directory / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def modules(*kinds: str) -> list[dict[str, Any]]:
    """Return the content of ``modules.json``; each module is in a directory with its number."""
    return [
        {"idx": i, "name": str(i), "path": str(i) if i else "", "type": LEGACY + kind}
        for i, kind in enumerate(("Transformer", *kinds))
    ]


@pytest.mark.parametrize(
    ("name", "pools"),
    [
        ("BertModel", True),
        ("Qwen3Model", True),
        ("BertForSequenceClassification", True),
        ("BertForMaskedLM", True),
        ("T5ForTextEncoding", True),
        ("LlamaForCausalLM", False),
        ("GPT2LMHeadModel", False),
        ("ChatGLMChatModel", False),
        ("LlavaForConditionalGeneration", False),
        ("Something", False),
    ],
)
def test_the_name_of_the_class_decides(tmp_path: Path, name: str, pools: bool) -> None:
    write(tmp_path, config={"architectures": [name]})
    assert model_pools(tmp_path, "auto") is pools
    assert model_pools(tmp_path, "pooling")
    assert not model_pools(tmp_path, "generate")


def test_modules_decide_before_the_class(tmp_path: Path) -> None:
    write(tmp_path, config={"architectures": ["Qwen3ForCausalLM"]}, modules=modules("Pooling"))
    assert model_pools(tmp_path, "auto")


@pytest.mark.parametrize("config", [{}, {"architectures": []}, {"architectures": None}])
def test_a_configuration_without_a_class_generates(tmp_path: Path, config: Any) -> None:
    assert not model_pools(write(tmp_path, config=config), "auto")


def test_everything_is_read(tmp_path: Path) -> None:
    dense = {"in_features": 8, "out_features": 4, "bias": False, "activation_function": "torch.nn.ReLU"}
    write(
        tmp_path,
        config={"architectures": ["BertModel"], "matryoshka_dimensions": [2]},
        modules=modules("Pooling", "Dense", "Normalize"),
        sentence_bert_config={"max_seq_length": 99, "do_lower_case": True},
        config_sentence_transformers={"prompts": {"query": "q "}, "default_prompt_name": "query"},
    )
    write(tmp_path, **{"1__config": {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}})
    write(tmp_path, **{"2__config": dense})
    assert read_pooling_config(tmp_path) == PoolingConfig(
        classifies=False,
        modes=("cls", "max"),
        layers=(
            DenseLayer(
                directory=tmp_path / "2", in_features=8, out_features=4, bias=False, activation="relu"
            ),
        ),
        normalize=True,
        max_length=99,
        prompts={"query": "q "},
        default_prompt_name="query",
        lowercase=True,
        matryoshka=(2,),
    )


CONFIG = {"architectures": ["BertModel"]}
POOLING = {"pooling_mode_mean_tokens": True}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules": modules("Pooling", "LSTM"), "1__config": POOLING}, "lists Transformer, Pooling, LSTM"),
        ({"modules": modules("Normalize", "Pooling")}, "in this order"),
        ({"modules": []}, "lists nothing"),
        ({"modules": [{"type": "custom.Transformer"}, *modules("Pooling")[1:]]}, None),
        ({"modules": {}}, "Expected `array`"),
        ({"modules": "["}, "modules.json is invalid"),
        ({"modules": [*modules()[:1], {"type": "x.Pooling", "path": "../1"}]}, "must be next to it"),
        ({"modules": [*modules()[:1], {"type": "x.Pooling", "path": "/etc"}]}, "must be next to it"),
        ({"modules": modules("Pooling")}, "1/config.json can't be read"),
        ({"modules": modules("Pooling"), "1__config": {}}, "names no pooling mode"),
        (
            {"modules": modules("Pooling"), "1__config": {"pooling_mode": "median"}},
            "Invalid enum value 'median'",
        ),
        (
            {"modules": modules("Pooling"), "1__config": {**POOLING, "include_prompt": False}},
            "include_prompt",
        ),
        (
            {
                "modules": modules("Pooling", "Dense"),
                "1__config": POOLING,
                "2__config": {"in_features": 1, "out_features": 1, "activation_function": "os.system"},
            },
            "the activation 'os.system' can't be served",
        ),
        (
            {
                "modules": modules("Pooling", "Dense"),
                "1__config": POOLING,
                "2__config": {"in_features": 10**12, "out_features": 1},
            },
            "Expected `int` <= 1048576",
        ),
        (
            {
                "modules": modules("Pooling", "Dense"),
                "1__config": POOLING,
                "2__config": {"in_features": 1, "out_features": 1, "use_residual": True},
            },
            "without a residual",
        ),
        (
            {
                "modules": modules("Pooling"),
                "1__config": POOLING,
                "config_sentence_transformers": {"default_prompt_name": "query"},
            },
            "there is no prompt 'query'",
        ),
        ({"sentence_bert_config": {"max_seq_length": 0}}, "Expected `int` >= 1"),
        ({"config": {**CONFIG, "matryoshka_dimensions": ["a"]}}, "matryoshka_dimensions"),
    ],
)
def test_what_can_not_be_served_is_one_line(
    tmp_path: Path, files: dict[str, Any], message: str | None
) -> None:
    write(tmp_path, **{"config": CONFIG, **files})
    if message is None:
        write(tmp_path, **{"1__config": POOLING})
        assert read_pooling_config(tmp_path).modes == ("mean",)
        return
    with pytest.raises(ModelError) as raised:
        read_pooling_config(tmp_path)
    assert message in raised.value.message
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({}, None),
        ({"problem_type": "single_label_classification"}, None),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"problem_type": "regression"}, "identity"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "identity"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, "tanh"),
    ],
)
def test_the_activation_of_classes(tmp_path: Path, config: dict[str, Any], activation: str | None) -> None:
    write(tmp_path, config={"architectures": ["BertForSequenceClassification"], **config})
    found = read_pooling_config(tmp_path)
    assert (found.classifies, found.activation) == (True, activation)


def test_an_unknown_activation_is_refused(tmp_path: Path) -> None:
    config = {
        "architectures": ["BertForSequenceClassification"],
        "sentence_transformers": {"activation_fn": "x.Y"},
    }
    with pytest.raises(ModelError, match=r"'x.Y' can't be served"):
        read_pooling_config(write(tmp_path, config=config))
