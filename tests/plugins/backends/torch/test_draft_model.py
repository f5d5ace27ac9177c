"""A draft model in the same engine changes no output, and its guesses are right where the models agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.generation import Generation, prompt
from support.tiny_models import save_model
from tokenizers import Tokenizer, models

from fllm import BackendConfig, BackendContext
from fllm.config import Speculation
from fllm.errors import ConfigError
from fllm_backends.torch.backend import torch_backend
from fllm_backends.torch.draft_model import DraftState, check_vocabularies

ONE_THREAD = {"threads": "1"}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
REQUESTS = [
    prompt("greedy", [3, 1, 4, 1, 5, 9, 2, 6], max_tokens=30),
    prompt("long", [*range(40)], max_tokens=20),
    prompt("sampled", [7, 8], max_tokens=30, temperature=0.8, top_p=0.9),
    prompt("penalized", [2, 7, 1], max_tokens=20, temperature=0.5, frequency_penalty=0.4, logprobs=1),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("tiny")
    save_model("Llama", directory, hidden_size=64, intermediate_size=96, **HEADS)
    return directory


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with the same vocabulary and fewer layers, which rarely agrees."""
    directory: Path = tmp_path_factory.mktemp("other")
    save_model("Llama", directory, hidden_size=32, intermediate_size=48, num_hidden_layers=1, **HEADS)
    return directory


def drafting(model: Path, **settings: Any) -> Speculation:
    return Speculation(
        method="draft_model", num_speculative_tokens=4, settings={"model": str(model), **settings}
    )


def test_the_model_itself_as_its_draft_is_always_right(tiny: Path) -> None:
    plain = Generation(tiny, REQUESTS, None, options=ONE_THREAD)
    drafted = Generation(tiny, REQUESTS, drafting(tiny), options=ONE_THREAD)
    assert drafted.tokens == plain.tokens
    assert drafted.status.accepted == drafted.status.drafted > 40
    assert drafted.status.steps < plain.status.steps / 2


def test_another_model_changes_no_output(tiny: Path, other: Path) -> None:
    plain, drafted = (
        Generation(tiny, REQUESTS, each, options=ONE_THREAD) for each in (None, drafting(other))
    )
    assert drafted.tokens == plain.tokens
    assert drafted.status.drafted > drafted.status.accepted
    assert drafted.status.drafters_off == 0


def test_nothing_is_drafted_beyond_the_length_of_the_draft_model(tiny: Path) -> None:
    asked = prompt("one", [3, 1, 4], max_tokens=40)
    drafted = Generation(tiny, [asked], drafting(tiny, max_model_len=16), options=ONE_THREAD)
    assert 0 < drafted.status.drafted <= 13
    assert drafted.tokens == Generation(tiny, [asked], None, options=ONE_THREAD).tokens


def test_what_the_draft_model_computed_of_right_drafts_is_kept() -> None:
    state = DraftState(prompt("r", [1]).sampling)
    state.follow([5, 6, 7])
    assert (state.computed, state.certain) == (0, 3)
    state.text += [8, 9]
    state.computed = 4  # the last draft was sampled, not computed
    state.follow([5, 6, 7, 8, 1, 2])
    assert (state.computed, state.text) == (4, [5, 6, 7, 8, 1, 2])
    state.text += [3]
    state.computed = 6
    state.follow([5, 6, 7, 8, 1, 2])
    assert state.computed == 5


def tokenizer(directory: Path, *tokens: str) -> Path:
    directory.mkdir()
    vocabulary = {token: number for number, token in enumerate(("<unk>", *tokens))}
    Tokenizer(models.WordLevel(vocabulary, "<unk>")).save(str(directory / "tokenizer.json"))
    return directory


def test_a_draft_model_with_other_tokens_is_refused_in_one_line(tmp_path: Path, tiny: Path) -> None:
    one, other = tokenizer(tmp_path / "a", "a", "b"), tokenizer(tmp_path / "b", "a", "c", "d")
    check_vocabularies(one, one)
    with pytest.raises(ConfigError, match=r"its token 2 is 'c', and that of the model 'b'"):
        check_vocabularies(one, other)
    longer = tokenizer(tmp_path / "c", "a", "b", "c")
    with pytest.raises(ConfigError, match="its token 3 is 'c', and that of the model None"):
        check_vocabularies(one, longer)


def test_the_vocabularies_are_compared_before_any_weights_are_read(tmp_path: Path, tiny: Path) -> None:
    draft = tokenizer(tmp_path / "draft", "a")
    (draft / "config.json").write_text("{}")
    config = BackendConfig(model=str(tiny), speculative_config=drafting(draft))
    with pytest.raises(ConfigError, match="model: the draft model has another vocabulary: "):
        torch_backend(config, BackendContext())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/nowhere", "--speculative-config: model: '/nowhere' does not exist"),
        ("no model", "--speculative-config: model: 'no model' is not a directory"),
    ],
)
def test_a_draft_model_that_does_not_exist_is_named(tiny: Path, model: str, message: str) -> None:
    speculation = Speculation(method="draft_model", num_speculative_tokens=2, settings={"model": model})
    with pytest.raises(ConfigError, match=message):
        Generation(tiny, REQUESTS, speculation)
