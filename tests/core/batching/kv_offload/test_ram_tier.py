from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from fllm.batching.kv_offload.ram_tier import ENTRY_BYTES, RamTier

operations = st.lists(
    st.tuples(st.sampled_from("pg"), st.integers(0, 7).map(lambda n: b"%d" % n), st.integers(0, 900))
)


@given(operations, st.integers(0, 4000))
def test_it_returns_what_was_stored_never_exceeds_its_limit_and_evicts_the_oldest(
    steps: list[tuple[str, bytes, int]], limit: int
) -> None:
    tier, model = RamTier(limit), OrderedDict[bytes, bytes]()
    for kind, key, size in steps:
        if key in model:
            model.move_to_end(key)
        if kind == "g":
            assert tier.get(key) == model.get(key)
            continue
        left = tier.put(key, bytes(size))
        if key not in model:
            model[key] = bytes(size)
        expected = []
        while sum(map(len, model.values())) + ENTRY_BYTES * len(model) > limit:
            expected.append(model.popitem(last=False))
        assert left == expected
        assert tier.used == sum(map(len, model.values())) + ENTRY_BYTES * len(model) <= limit
    assert list(tier.newest_first()) == list(reversed(model))


def test_a_look_is_not_a_use() -> None:
    tier = RamTier(2 * ENTRY_BYTES + 2)
    tier.put(b"a", b"1")
    tier.put(b"b", b"2")
    assert tier.peek(b"a") == b"1"
    assert tier.put(b"c", b"3") == [(b"a", b"1")]
