"""Drafts from the longest match in a sequence's own text, and in earlier outputs of its client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fllm import ConfigError, DraftedSequence, DraftRequest, SamplingParams
from fllm.testing import DrafterContract
from fllm_backends.drafters import output_cache, suffix
from fllm_backends.drafters.output_cache import GENERATION_TOKENS, MAX_OUTPUT_TOKENS, MAX_TOKENS, OutputCache
from fllm_backends.drafters.suffix import SuffixDrafter
from fllm_backends.drafters.suffix_index import KEY_SIZES, MAX_OCCURRENCES, SuffixIndex

TEXTS = st.lists(st.integers(1, 3), max_size=60)
SHORTEST = min(KEY_SIZES)


def drafter(**settings: Any) -> SuffixDrafter:
    return SuffixDrafter(replace(DrafterContract.context(), settings=settings))


def start(
    drafting: SuffixDrafter, text: Sequence[int], *, prompt: int = 1, scope: bytes = b"", name: str = "s"
) -> DraftedSequence:
    sequence = DraftedSequence(
        id=name,
        scope=scope,
        token_ids=[*text],
        prompt_length=prompt,
        sampling=SamplingParams(max_tokens=100),
        seed=0,
    )
    drafting.start(sequence)
    return sequence


def drafts(text: Sequence[int], max_tokens: int = 9, **settings: Any) -> list[int]:
    drafting = drafter(**settings)
    [tokens] = drafting.propose([DraftRequest(start(drafting, text), max_tokens)])
    return [*tokens]


def after_outputs(
    outputs: Sequence[Sequence[int]], text: Sequence[int], *, scope: bytes = b"", **settings: Any
) -> list[int]:
    """Return the drafts for a text, after sequences with these outputs have ended in the scope ``b""``."""
    drafting = drafter(**settings)
    for output in outputs:
        drafting.end(start(drafting, [0, *output], name="earlier"))
    [tokens] = drafting.propose([DraftRequest(start(drafting, text, scope=scope), 9)])
    return [*tokens]


def common(text: Sequence[int], position: int) -> int:
    """Return how many tokens before a position equal the last ones."""
    count = 0
    while count < position and text[position - 1 - count] == text[len(text) - 1 - count]:
        count += 1
    return count


@given(TEXTS, st.lists(st.integers(1, 40), max_size=4))
def test_occurrences_are_the_places_of_equal_tokens(text: list[int], pieces: list[int]) -> None:
    index, known = SuffixIndex(), 0
    for size in (*pieces, len(text)):
        index.append(text[known : known + size])
        known = len(index.tokens)
    found = [*index.occurrences(text, 99)]
    assert found == [(position, common(text, position)) for position, _ in found]
    assert [each[0] for each in found] == sorted((each[0] for each in found), reverse=True)
    expected = [at for at in range(1, len(text)) if common(text, at) >= SHORTEST]
    assert bool(found) == bool(expected)
    if expected and len(expected) <= MAX_OCCURRENCES:
        assert max(length for _, length in found) == max(common(text, at) for at in expected)


def test_what_followed_the_longest_match_is_drafted() -> None:
    assert drafts([1, 2, 3, 9, 9, 2, 3, 7, 7, 1, 2, 3])[:1] == [9]
    assert drafts([1, 2, 3, 4]) == []
    assert drafts([1]) == []


def test_there_are_as_many_drafts_as_the_match_is_long() -> None:
    text = [*range(1, 20), *range(1, 5)]
    assert drafts(text) == [5, 6, 7, 8]
    assert drafts(text, suffix_decoding_max_spec_factor=0.5) == [5, 6]
    assert drafts(text, suffix_decoding_max_spec_factor=2) == [5, 6, 7, 8, 9, 10, 11, 12]
    assert drafts(text, suffix_decoding_max_tree_depth=2) == [5, 6]
    assert drafts(text, max_tokens=1) == [5]


def test_a_text_that_repeats_itself_is_continued_beyond_its_end() -> None:
    assert drafts([7, 1, 2, 1, 2, 1, 2], suffix_decoding_max_spec_factor=3) == [1, 2, 1, 2, 1, 2, 1, 2, 1]


def test_most_occurrences_decide_and_a_rare_token_is_left_out() -> None:
    text = [1, 2, 5, 8, 1, 2, 5, 9, 1, 2, 6, 1, 2]
    assert drafts(text) == [5, 9]
    assert drafts(text, suffix_decoding_min_token_prob=0.5) == [5]
    assert drafts(text, suffix_decoding_min_token_prob=0.9) == []


def test_outputs_of_earlier_requests_of_the_scope_are_drafted_from() -> None:
    assert after_outputs([[1, 2, 3, 4, 5]], [9, 1, 2, 3]) == [4, 5]
    assert after_outputs([[1, 2, 3, 4, 5]], [9, 1, 2, 3], scope=b"other") == []
    assert after_outputs([[1, 2, 3, 4, 5]], [9, 1, 2, 3], suffix_decoding_max_cached_requests=0) == []


def test_drafts_never_lead_from_one_output_into_another() -> None:
    assert after_outputs([[1, 2, 3], [4, 5, 6]], [9, 2, 3]) == []
    assert after_outputs([[1, 2, 3], [4, 5, 6]], [9, 4, 5]) == [6]


def test_prompts_of_earlier_requests_are_not_kept() -> None:
    drafting = drafter()
    drafting.end(start(drafting, [1, 2, 3, 4, 5, 6], prompt=5, name="earlier"))
    assert [*drafting.propose([DraftRequest(start(drafting, [1, 2]), 4)])] == [[]]


def test_a_long_prompt_is_indexed_in_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffix, "INDEXED_PER_STEP", 4)
    drafting = drafter()
    request = DraftRequest(start(drafting, [*range(1, 12), 3, 4]), 2)
    found = [[*drafting.propose([request])[0]] for _ in range(3)]
    assert found == [[], [5, 6], [5, 6]]


def test_a_new_generation_drops_the_oldest_outputs() -> None:
    cache = OutputCache(4)
    for number in range(4):
        cache.add(b"", [number] * 5)
    kept = {token for index in cache.of(b"") for token in index.tokens}
    assert kept >= {2, 3}
    for number in range(4, 8):
        cache.add(b"", [number] * 5)
    kept = {token for index in cache.of(b"") for token in index.tokens}
    assert kept == {-1, 4, 5, 6, 7}
    assert cache.size == sum(len(index.tokens) for index in cache.of(b""))


def test_the_memory_of_all_scopes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_cache, "MAX_TOKENS", 400)
    monkeypatch.setattr(output_cache, "GENERATION_TOKENS", 100)
    cache = OutputCache(1000)
    for number in range(60):
        cache.add(b"often", [1] * 9)
        cache.add(b"%d" % number, [2] * 30)
        assert cache.size <= 400
    assert cache.of(b"often")
    assert not cache.of(b"0")
    assert cache.of(b"59")


def test_only_the_end_of_a_very_long_output_is_kept() -> None:
    cache = OutputCache(1000)
    cache.add(b"", range(5 * MAX_OUTPUT_TOKENS))
    [index] = cache.of(b"")
    assert index.tokens == [*range(4 * MAX_OUTPUT_TOKENS, 5 * MAX_OUTPUT_TOKENS), -1]
    assert MAX_OUTPUT_TOKENS < GENERATION_TOKENS <= MAX_TOKENS // 2


def test_fields_of_other_drafters_are_refused() -> None:
    with pytest.raises(ConfigError, match="--speculative-config prompt_lookup_max: there is no such option"):
        drafter(prompt_lookup_max=3)
    with pytest.raises(ConfigError, match="suffix_decoding_min_token_prob=2: invalid value"):
        drafter(suffix_decoding_min_token_prob=2)
