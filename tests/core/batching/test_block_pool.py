from array import array

import pytest

from fllm.batching.block_hashes import hash_block
from fllm.batching.block_pool import BlockPool
from fllm.values import GenerateRequest, SamplingParams

A, B, C = (hash_block(b"", [token]) for token in (1, 2, 3))


def allocate(pool: BlockPool, count: int, reused: list[int] | None = None) -> list[int]:
    reused = reused or []
    assert pool.can_allocate(count, reused)
    pool.ref(reused)
    return reused + pool.allocate(count)


def test_a_hash_identifies_the_tokens_and_everything_before_them():
    assert hash_block(A, [5, 6]) == hash_block(A, [5, 6])
    assert (
        len({hash_block(A, [5, 6]), hash_block(B, [5, 6]), hash_block(A, [6, 5]), hash_block(A, [5, 6, 0])})
        == 4
    )


def test_more_blocks_than_are_free_cannot_be_allocated():
    pool = BlockPool(2, 4)
    allocate(pool, 1)
    assert not pool.can_allocate(2)
    assert pool.num_free == 1


def test_reused_blocks_that_are_cached_are_not_counted_as_free():
    pool = BlockPool(2, 4)
    [block] = allocate(pool, 1)
    pool.cache(block, A)
    pool.free([block])
    assert not pool.can_allocate(2, [block])
    assert allocate(pool, 1, [block])[0] == block
    assert pool.num_free == 0


def test_a_shared_block_is_in_use_until_its_last_reference_is_dropped():
    pool = BlockPool(1, 4)
    [block] = allocate(pool, 1)
    allocate(pool, 0, [block])
    pool.free([block])
    assert pool.num_free == 0
    pool.free([block])
    assert pool.num_free == 1


def test_freed_blocks_are_found_by_their_hashes():
    pool = BlockPool(3, 4)
    blocks = allocate(pool, 2)
    for block, digest in zip(blocks, (A, B), strict=True):
        pool.cache(block, digest)
    pool.free(blocks)
    assert pool.find_cached([A, B, C]) == blocks
    assert pool.find_cached([C, A]) == []


def test_empty_blocks_are_allocated_first_then_the_least_recently_used():
    pool = BlockPool(3, 4)
    a, b, empty = allocate(pool, 3)
    pool.cache(a, A)
    pool.cache(b, B)
    for block in (a, b, empty):
        pool.free([block])
    pool.free(allocate(pool, 0, [a]))  # used once more, so b is the older one now
    assert allocate(pool, 2) == [empty, b]
    assert pool.find_cached([A]) == [a]
    assert pool.find_cached([B]) == []


def test_the_end_of_a_sequence_is_evicted_before_its_beginning():
    pool = BlockPool(2, 4)
    first, second = allocate(pool, 2)
    pool.cache(first, A)
    pool.cache(second, B)
    pool.free([first, second])
    assert allocate(pool, 1) == [second]
    assert pool.find_cached([A]) == [first]


def test_of_two_blocks_with_the_same_content_the_first_is_found():
    pool = BlockPool(2, 4)
    first, second = allocate(pool, 2)
    pool.cache(first, A)
    pool.cache(second, A)
    pool.free([second])
    assert pool.find_cached([A]) == [first]
    pool.evict(second)
    assert pool.find_cached([A]) == [first]


def test_an_evicted_block_is_not_found():
    pool = BlockPool(1, 4)
    blocks = allocate(pool, 1)
    pool.cache(blocks[0], A)
    pool.evict(blocks[0])
    pool.free(blocks)
    assert pool.find_cached([A]) == []
    assert pool.num_free == 1


def test_a_pool_without_caching_evicts_freed_blocks():
    pool = BlockPool(1, 4, enable_caching=False)
    blocks = allocate(pool, 1)
    pool.cache(blocks[0], A)
    assert pool.find_cached([A]) == blocks
    pool.free(blocks)
    assert pool.find_cached([A]) == []
    assert allocate(pool, 1) == blocks


def request(*, group: str = "", salt: str = "", shared: int = 0) -> GenerateRequest:
    sampling = SamplingParams(max_tokens=1)
    return GenerateRequest("r", [1], sampling, group, cache_salt=salt, shared_tokens=shared)


@pytest.mark.parametrize(("enable_caching", "same"), [(True, True), (False, False)])
def test_groups_share_blocks_only_with_caching(enable_caching: bool, same: bool):
    pool = BlockPool(1, 4, enable_caching=enable_caching)
    one, two = (pool.namespace(request(group=name)) for name in ("one", "two"))
    assert (one == two) is same
    assert one == pool.namespace(request(group="one"))


def test_each_salt_is_a_namespace_and_no_salt_is_none():
    pool = BlockPool(1, 4)
    names = [pool.namespace(request(group=salt, salt=salt)) for salt in ("", "a", "b", "a")]
    assert names[0] == (b"", 0)
    assert names[1] == names[3]
    assert len(set(names)) == 3


def test_without_caching_no_tokens_are_shared_with_other_groups():
    pool = BlockPool(1, 4, enable_caching=False)
    assert pool.namespace(request(group="a", shared=8)) == pool.namespace(request(group="a"))


def test_no_salt_has_the_namespace_of_images():
    pool = BlockPool(1, 4)
    asked = [("", ("a", "b")), ("", ("a",)), ("b", ("a",)), ("\0a\0b", ()), ("a\0b", ()), ("1\0a\0", ())]
    names = [
        pool.namespace(
            GenerateRequest("r", [1], SamplingParams(max_tokens=1), cache_salt=salt, images=images)
        )
        for salt, images in asked
    ]
    assert len(set(names)) == len(asked)


def test_no_salt_has_the_hash_of_a_block():
    tokens = [65, 66]
    salt = array("q", tokens).tobytes().decode()
    namespace, _ = BlockPool(1, 4).namespace(request(salt=salt))
    assert namespace != hash_block(b"", tokens)
