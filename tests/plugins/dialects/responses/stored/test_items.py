"""Items as they are stored."""

from __future__ import annotations

from msgspec import UNSET

from fllm.concurrency.turn_executor import run_at_once
from fllm_dialects.responses.protocol.items import InputItem, InputPart
from fllm_dialects.responses.stored.items import complete_input, with_new_ids


def test_a_text_becomes_a_message_of_the_user() -> None:
    [item] = run_at_once(complete_input("Hi"))
    assert (item.type, item.role, item.status) == ("message", "user", "completed")
    assert item.content == [InputPart(type="input_text", text="Hi")]
    assert str(item.id).startswith("msg_")
    assert run_at_once(complete_input(None)) == []


def test_texts_become_parts_and_each_item_has_an_id_of_its_own() -> None:
    given = [
        InputItem(role="assistant", content="Hello", id="msg_1"),
        InputItem(role="user", content=[InputPart(type="input_text", text="a")], id="msg_1"),
        InputItem(type="function_call", call_id="c", name="f", arguments="{}"),
        InputItem(type="function_call_output", call_id="c", output="1"),
        InputItem(type="reasoning", id="rs_1", summary=[]),
        InputItem(role="user", content="Hi", id="x" * 257),
    ]
    items = run_at_once(complete_input(given))
    assert items[0].content == [InputPart(type="output_text", text="Hello", annotations=[])]
    assert items[1].content == given[1].content
    prefixes = [str(item.id).partition("_")[0] for item in items]
    assert prefixes == ["msg", "msg", "fc", "fco", "rs", "msg"]
    assert len({item.id for item in items}) == 6
    assert (items[0].id, items[4].id, items[4].status) == ("msg_1", "rs_1", UNSET)
    assert not {item.id for item in with_new_ids(items)} & {item.id for item in items}
