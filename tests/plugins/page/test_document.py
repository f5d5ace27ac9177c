"""The page as one document."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re

from fllm_page.document import LIBRARIES, SCRIPTS, STATIC, STYLES, document

MOST_BYTES = 100_000
"""Size of the compressed page, libraries included, that must not be reached."""


def test_the_page_is_small() -> None:
    assert len(document().compressed) < MOST_BYTES
    assert gzip.decompress(document().compressed) == document().html


def test_the_policy_allows_exactly_the_script_and_the_style_of_the_page() -> None:
    text = document().html.decode()
    policy = document().headers["content-security-policy"]
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        [content] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}' 'self'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_document_has_no_inline_handler_or_style_and_loads_nothing() -> None:
    frame = (STATIC / "index.html").read_text()
    assert not re.search(r"\s(on\w+|style)=", frame)
    assert not re.search(r"(?:src|href)=\"(?!data:)", frame)


def test_each_library_is_the_published_file_with_its_licence() -> None:
    listed = {}
    for line in (STATIC / "vendor/VERSIONS").read_text().splitlines():
        if not line.startswith("#"):
            name, version, url, digest, path = line.split()
            assert url == f"https://www.npmjs.com/package/{name}/v/{version}"
            listed[path] = digest.removeprefix("sha256:")
    assert set(listed) == set(LIBRARIES)
    for path, digest in listed.items():
        file = STATIC / "vendor" / path
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest, path
        assert (file.parent / "LICENSE").read_text()


def test_all_scripts_and_styles_are_in_the_page_and_are_short() -> None:
    assert sorted(SCRIPTS) == sorted(path.name for path in (STATIC / "scripts").glob("*.js"))
    assert sorted(STYLES) == sorted(path.name for path in (STATIC / "styles").glob("*.css"))
    for name in SCRIPTS:
        text = (STATIC / "scripts" / name).read_text()
        assert len(text.splitlines()) < 350, name
        assert text.startswith("/**"), name
        assert '"use strict";' in text, name


def test_no_script_of_ours_reads_text_as_html_or_as_a_program() -> None:
    for name in SCRIPTS:
        text = (STATIC / "scripts" / name).read_text()
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", text
        )
        assert found is None, f"{name}: {found}"
