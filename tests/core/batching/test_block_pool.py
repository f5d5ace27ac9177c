import pytest

from fllm.batching.block_pool import BlockPool, chain

A, B, C = (chain(b"", [token]) for token in (1, 2, 3))


def take(pool: BlockPool, fresh: int, shared: list[int] | None = None) -> list[int]:
    blocks = pool.take(fresh, shared or [])
    assert blocks is not None
    return blocks


def test_a_digest_names_the_tokens_and_everything_before_them():
    assert chain(A, [5, 6]) == chain(A, [5, 6])
    assert len({chain(A, [5, 6]), chain(B, [5, 6]), chain(A, [6, 5]), chain(A, [5, 6, 0])}) == 4


def test_taking_more_than_there_is_changes_nothing():
    pool = BlockPool(2, 4)
    take(pool, 1)
    assert pool.take(2) is None
    assert pool.free == 1


def test_shared_blocks_that_are_idle_are_not_counted_twice():
    pool = BlockPool(2, 4)
    [block] = take(pool, 1)
    pool.register(block, A)
    pool.release([block])
    assert pool.take(2, [block]) is None
    assert take(pool, 1, [block])[0] == block
    assert pool.free == 0


def test_a_shared_block_stays_until_its_last_holder_lets_go():
    pool = BlockPool(1, 4)
    [block] = take(pool, 1)
    take(pool, 0, [block])
    pool.release([block])
    assert pool.free == 0
    pool.release([block])
    assert pool.free == 1


def test_released_blocks_are_found_again_by_their_digests():
    pool = BlockPool(3, 4)
    blocks = take(pool, 2)
    for block, digest in zip(blocks, (A, B), strict=True):
        pool.register(block, digest)
    pool.release(blocks)
    assert pool.match([A, B, C]) == blocks
    assert pool.match([C, A]) == []


def test_blank_blocks_go_first_then_the_least_recently_used():
    pool = BlockPool(3, 4)
    a, b, blank = take(pool, 3)
    pool.register(a, A)
    pool.register(b, B)
    for block in (a, b, blank):
        pool.release([block])
    pool.release(take(pool, 0, [a]))  # used once more, so b is the older one now
    assert take(pool, 2) == [blank, b]
    assert pool.match([A]) == [a]
    assert pool.match([B]) == []


def test_the_end_of_a_sequence_is_evicted_before_its_beginning():
    pool = BlockPool(2, 4)
    first, second = take(pool, 2)
    pool.register(first, A)
    pool.register(second, B)
    pool.release([first, second])
    assert take(pool, 1) == [second]
    assert pool.match([A]) == [first]


def test_of_two_blocks_with_the_same_content_the_first_is_found():
    pool = BlockPool(2, 4)
    first, second = take(pool, 2)
    pool.register(first, A)
    pool.register(second, A)
    pool.release([second])
    assert pool.match([A]) == [first]
    pool.forget(second)
    assert pool.match([A]) == [first]


def test_a_forgotten_block_is_found_no_more():
    pool = BlockPool(1, 4)
    blocks = take(pool, 1)
    pool.register(blocks[0], A)
    pool.forget(blocks[0])
    pool.release(blocks)
    assert pool.match([A]) == []
    assert pool.free == 1


def test_a_pool_that_retains_nothing_forgets_what_nobody_holds():
    pool = BlockPool(1, 4, retain=False)
    blocks = take(pool, 1)
    pool.register(blocks[0], A)
    assert pool.match([A]) == blocks
    pool.release(blocks)
    assert pool.match([A]) == []
    assert take(pool, 1) == blocks


@pytest.mark.parametrize(("retain", "same"), [(True, True), (False, False)])
def test_only_a_retaining_pool_lets_groups_share(retain: bool, same: bool):
    pool = BlockPool(1, 4, retain=retain)
    assert (pool.root("one") == pool.root("two")) is same
    assert pool.root("one") == pool.root("one")
