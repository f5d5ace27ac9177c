"""The page as one HTML document, with styles and scripts inline, and a policy that allows exactly these."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec

STATIC = Path(__file__).parent / "static"

LIBRARIES = (
    "preact/preact.min.umd.js",
    "preact/hooks.umd.js",
    "signals-core/signals-core.min.js",
    "signals/signals.min.js",
    "htm/htm.umd.js",
    "marked/marked.umd.js",
)
# In this order. A script uses what earlier ones put into the namespace `fllm`; `main.js` shows the page.
SCRIPTS = (
    "base.js",
    "settings.js",
    "api.js",
    "server.js",
    "store.js",
    "tabs.js",
    "dialogs.js",
    "markdown.js",
    "conversation.js",
    "request.js",
    "runs.js",
    "options.js",
    "sidebar.js",
    "message.js",
    "composer.js",
    "chat.js",
    "inside-trace.js",
    "inside-tokens.js",
    "inside-parse.js",
    "machine-phases.js",
    "inside.js",
    "compare.js",
    "machine-charts.js",
    "machine-models.js",
    "machine-requests.js",
    "machine.js",
    "plugins.js",
    "main.js",
)
STYLES = ("base.css", "chat.css", "inside.css", "machine.css")

# What would end a script early, or keep the browser from finding its end.
_ENDS_SCRIPT = re.compile(r"</?script", re.IGNORECASE)
_ENDS_STYLE = re.compile(r"</style", re.IGNORECASE)
# Comments of ours that begin a line; a browser needs none.
_COMMENT = re.compile(r"^[ ]*(?:/\*.*?\*/[ ]*|//[^\n]*)\n", re.MULTILINE | re.DOTALL)
_INDENT = re.compile(r"^[ ]+", re.MULTILINE)
# Developer tools would ask the server for a file that it does not have.
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)


class Document(msgspec.Struct, frozen=True):
    """The page, ready to be sent: its bytes, the same compressed with gzip, and its headers."""

    html: bytes
    compressed: bytes
    headers: dict[str, str]

    @property
    def etag(self) -> str:
        """Return the entity tag, in quotes."""
        return self.headers["etag"]


@cache
def document() -> Document:
    """Return the page, made from the files at first use."""
    script = _joined("scripts", SCRIPTS, libraries=LIBRARIES)
    style = _joined("styles", STYLES)
    if _ENDS_SCRIPT.search(script) or _ENDS_STYLE.search(style):
        raise ValueError("A script or style of the page has a tag in it that would end it early.")
    frame = (STATIC / "index.html").read_text(encoding="utf-8")
    page = frame.replace("<!-- style -->", f"<style>{style}</style>")
    page = page.replace("<!-- script -->", f"<script>{script}</script>")
    html = page.encode()
    headers = {
        "content-security-policy": _policy(script, style),
        "etag": f'"{hashlib.sha256(html).hexdigest()[:32]}"',
        "cache-control": "no-cache",
        "vary": "accept, accept-encoding",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
    }
    return Document(html, gzip.compress(html, 9, mtime=0), headers)


def _joined(folder: str, names: Iterable[str], *, libraries: Iterable[str] = ()) -> str:
    """Return the text of these libraries, without source maps, then of these files of a folder."""
    texts = [_SOURCE_MAP.sub("", _text("vendor", name)) for name in libraries]
    texts += [_INDENT.sub("", _COMMENT.sub("", _text(folder, name))) for name in names]
    return "\n" + "\n".join(map(str.strip, texts)) + "\n"


def _text(folder: str, name: str) -> str:
    """Return the text of a file. HTML parsers read a line end as one line feed, as digests require."""
    return (STATIC / folder / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _policy(script: str, style: str) -> str:
    """Return the Content-Security-Policy: this script and style, and nothing from another origin.

    ``'self'`` is for the panels of plugins.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}' 'self'",
            f"style-src '{_digest(style)}' 'self'",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "font-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _digest(text: str) -> str:
    """Return the digest of an inline script or style, as a policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
