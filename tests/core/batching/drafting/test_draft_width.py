from __future__ import annotations

from fllm.batching.drafting.draft_width import IDLE_STEPS, INITIAL_WIDTH, MAX_PAUSE, DraftWidth


def test_the_width_doubles_while_all_drafts_are_right() -> None:
    width, widths = DraftWidth(), list[int]()
    for _ in range(5):
        widths.append(min(width.next(), 6))
        width.update(widths[-1], widths[-1])
    assert widths == [INITIAL_WIDTH, 2, 4, 6, 6]
    width.update(6, 3)
    assert width.next() == 3


def test_a_drafter_that_returns_fewer_does_not_narrow_the_width() -> None:
    width = DraftWidth(width=8)
    width.update(2, 2)
    assert width.next() == 8


def test_a_drafter_without_drafts_is_asked_less_often_until_it_has_some() -> None:
    width, asked = DraftWidth(), 0
    for _ in range(100):
        if width.next():
            asked += 1
            width.found(0)
    assert IDLE_STEPS < asked < 45
    while not width.next():
        pass
    width.found(1)
    assert [width.next() for _ in range(3)] == [1, 1, 1]


def test_a_sequence_whose_drafts_are_always_wrong_gets_some_rarely() -> None:
    width, pauses = DraftWidth(), [0]
    for _ in range(400):
        if count := width.next():
            assert count == INITIAL_WIDTH
            width.update(count, 0)
            pauses.append(0)
        else:
            pauses[-1] += 1
    assert pauses[:7] == [0, 0, 1, 3, 7, 15, 31]
    assert max(pauses) == MAX_PAUSE
