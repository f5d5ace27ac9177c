"""Small chat templates that refuse or lose a part of some conversations, one for each habit of real ones."""

from __future__ import annotations

CALL = "(call {{ c.function.name }} {{ c.function.arguments | tojson }})"
CALLS = "{% for c in m.tool_calls or [] %}" + CALL + "{% endfor %}"
TURN = "[{{ m.role }}]{{ m.content }}" + CALLS
TEXT = "[{{ m.role }}]{{ m.content }}"
PLAIN_ROLES = (
    "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant', 'tool'] %}"
    + TURN
    + "{% endif %}{% endfor %}"
)
RAISE_IF = "{{% if {} %}}{{{{ raise_exception('refused') }}}}{{% endif %}}"


def _raise_if(condition: str) -> str:
    return RAISE_IF.format(condition)


def _each(*checks: str, turn: str = TURN) -> str:
    return "{% for m in messages %}" + "".join(map(_raise_if, checks)) + turn + "{% endfor %}"


TEMPLATES = {
    "anything": PLAIN_ROLES,
    "one system message, first": _each("m.role == 'system' and not loop.first"),
    "last system message wins": (
        "{% set ns = namespace(s='') %}{% for m in messages if m.role == 'system' %}"
        "{% set ns.s = m.content %}{% endfor %}[system]{{ ns.s }}"
        "{% for m in messages if m.role != 'system' %}" + TURN + "{% endfor %}"
    ),
    "no system message": _each("m.role == 'system'"),
    "alternating, no system message, no tools": (
        "{% for m in messages %}"
        + _raise_if("(m.role == 'user') != (loop.index0 % 2 == 0)")
        + "[{{ m.role }}]{{ m.content }}{% endfor %}"
    ),
    "alternating apart from tools, ids of nine characters": (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
        "{% set messages = messages[1:] %}{% endif %}{% set ns = namespace(i=0) %}{% for m in messages %}"
        "{% if m.role != 'tool' and not m.tool_calls %}"
        + _raise_if("(m.role == 'user') != (ns.i % 2 == 0)")
        + "{% set ns.i = ns.i + 1 %}{% endif %}{% if m.role == 'tool' %}"
        + _raise_if("m.tool_call_id | length != 9")
        + "[tool {{ m.tool_call_id }}]{{ m.content }}{% elif m.tool_calls %}{% for c in m.tool_calls %}"
        + _raise_if("c.id | length != 9")
        + "(call {{ c.id }} {{ c.function.name }} {{ c.function.arguments | tojson }}){% endfor %}"
        "{% elif m.role == 'user' and loop.last and system is defined %}[user]{{ system }}\n\n{{ m.content }}"
        "{% else %}" + _raise_if("m.role not in ['user', 'assistant']") + "[{{ m.role }}]{{ m.content }}"
        "{% endif %}{% endfor %}"
    ),
    "one call": _each("m.tool_calls and m.tool_calls | length != 1"),
    "only the first call": _each(
        turn="[{{ m.role }}]{{ m.content }}{{ m.tool_calls[0].function if m.tool_calls }}"
    ),
    "calls without text": (
        "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}"
        + CALLS
        + "{% else %}{{ m.content }}{% endif %}"
        "{% endfor %}"
    ),
    "no reasoning with text and calls": _each(
        "m.tool_calls and m.content and m.reasoning_content",
        turn="[{{ m.role }}]{{ m.reasoning_content }}{{ m.content }}" + CALLS,
    ),
    "results only of calls": (
        "{% set ns = namespace(open=false) %}{% for m in messages %}"
        + _raise_if("m.role == 'tool' and not ns.open")
        + "{% set ns.open = m.role == 'tool' or m.tool_calls | default([]) | length > 0 %}"
        + TURN
        + "{% endfor %}"
    ),
    "each call has a result": (
        "{% for m in messages %}"
        + _raise_if("m.tool_calls and (loop.nextitem is not defined or loop.nextitem.role != 'tool')")
        + TURN
        + "{% endfor %}"
    ),
    "results have a role of their own": (
        "{% for m in messages if m.role in ['system', 'user', 'assistant', 'ipython'] %}"
        + TURN
        + "{% endfor %}"
    ),
    "no calls": "{% for m in messages %}" + TEXT + "{% endfor %}{{ tools | tojson if tools }}",
    "no calls and no results": (
        "{% for m in messages if m.role in ['system', 'user', 'assistant'] %}" + TEXT + "{% endfor %}"
    ),
    "begins with the user": (
        "{% set first = (messages | rejectattr('role', 'equalto', 'system') | list)[0] %}"
        + _raise_if("first is not defined or first.role != 'user'")
        + PLAIN_ROLES
    ),
    "developer, not system": (
        "{% for m in messages if m.role in ['developer', 'user', 'assistant', 'tool'] %}"
        + TURN
        + "{% endfor %}"
    ),
    "content as parts": (
        "{% for m in messages %}"
        + _raise_if("m.role == 'system' and not loop.first")
        + "[{{ m.role }}]{% for part in m.content %}{{ part.text }}{% endfor %}"
        + CALLS
        + "{% endfor %}"
    ),
    "ids of nine characters or more": _each("m.tool_calls and m.tool_calls[0].id | length < 9"),
    "results only within a turn of the assistant": (
        "{% set ns = namespace(last='') %}{% for m in messages %}"
        + _raise_if("m.role == 'tool' and ns.last != 'assistant'")
        + "{% if m.role != 'tool' %}{% set ns.last = m.role %}{% endif %}"
        + TURN
        + "{% endfor %}"
    ),
    "alternating apart from tools, no empty answer": (
        "{% set ns = namespace(i=0) %}{% for m in messages %}{% if m.role != 'tool' and not m.tool_calls %}"
        + _raise_if("(m.role == 'user') != (ns.i % 2 == 0)")
        + _raise_if("m.role == 'assistant' and not m.content")
        + "{% set ns.i = ns.i + 1 %}{% endif %}"
        + TURN
        + "{% endfor %}"
    ),
    "a call at the end is lost": (
        "{% for m in messages %}{% if loop.last %}[{{ m.role }}]{{ m.content }}{% else %}"
        + TURN
        + "{% endif %}{% endfor %}"
    ),
    "one part of an answer": (
        "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{{ m.content[0].text }}"
        "{% else %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}" + CALLS + "{% endfor %}"
    ),
    "content as text, but calls in a loop over content": (
        "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}"
        "{% if m.tool_calls is defined %}{% set calls = m.tool_calls %}"
        "{% else %}{% set calls = m.content %}{% endif %}{% if m.tool_calls is defined %}"
        "{% for c in calls %}" + CALL + "{% endfor %}{% endif %}{% endfor %}"
    ),
    "a result has the name of its call": (
        "{% for m in messages %}{% if m.role == 'tool' %}{% set ns = namespace(name=none) %}"
        "{% for n in messages %}{% for c in n.tool_calls or [] %}{% if c.id == m.tool_call_id %}"
        "{% set ns.name = c.function.name %}{% endif %}{% endfor %}{% endfor %}"
        + _raise_if("ns.name is none")
        + "{% endif %}"
        + TURN
        + "{% endfor %}"
    ),
    "text next to the first call only": (
        "{% set ns = namespace(called=false) %}{% for m in messages %}[{{ m.role }}]"
        "{{ m.content if not (m.tool_calls and ns.called) }}"
        + CALLS
        + "{% if m.role != 'tool' %}{% set ns.called = m.tool_calls | default([]) | length > 0 %}{% endif %}"
        "{% endfor %}"
    ),
}
