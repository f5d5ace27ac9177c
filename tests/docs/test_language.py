"""Plain, modern English: a list of words that have shorter ones, and docstrings that begin with a verb."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

INSTEAD = {
    r"strangers?(?:'s)?": "third-party",
    r"whoever|whosoever": "name the person or the part",
    r"lest": "to avoid",
    r"mend(?:s|ed|ing)?": "fix",
    r"so many": "N, or a number of",
    r"but for|save for|save where": "except",
    r"(?<!there )(?<!There )(?:is|are) no (?!longer\b|more\b)": "is not a",
    r"nobody's": "name the owner",
    r"told|hears?|heard": "report, receive, emit",
    r"of no account": "ignored",
    r"patience": "timeout",
    r"beside": "next to, with, while",
    r"thereby|therein|thereof|wherein|whence|hence": "a plain clause",
}
"""What not to write, as regular expressions, and what to write."""

WORDS = re.compile(rf"\b(?:{'|'.join(INSTEAD)})\b", re.IGNORECASE)
FOLDERS = ("core", "api", "plugins", "examples", "benchmarks", "scripts", "deploy")


VERBS = frozenset(
    """
    Abandon Accept Add Admit Advance Allocate Allow Append Apply Arrange Ask Assert Assign Attach Attend
    Authenticate Begin Bind Build Call Cancel Charge Chat Check Choose Clear Close Compare Compile Compute
    Concatenate Connect Constrain Consume Continue Convert Copy Count Create Decode Delete Dequantize
    Derive Describe Disconnect Divide Do Download Draft Drain Draw Drop Emit Encode End Enter Escape
    Execute Exit Expire Export Extract Fail Feed Fetch Find Follow Format Forward Free Generate Give Grant
    Group Handle Hash Hold Ignore Import Initialize Inject Insert Inspect Install Join Keep Kill Leave Let
    Limit List Listen Load Lock Log Lower Make Map Mark Mask Match Measure Merge Mount Move Multiply Name
    Normalize Notify Observe Occupy Open Pack Pad Parse Pass Pick Place Plan Play Pop Prefetch Prepare Prepend
    Print Probe Process Provide Push Put Quantize Queue Raise Read Receive Record Register Reject Release
    Remove Rename Render Reorder Replace Report Request Require Reserve Reset Resolve Restart Restore
    Return Rotate Round Run Sample Save Scale Schedule Score Search Select Send Serialize Serve Set Show
    Shut Simulate Skip Sleep Sort Split Start Step Stop Store Stream Strip Submit Switch Take Test Tokenize
    Track Train Transfer Turn Undo Unload Unmap Update Upgrade Upload Use Validate Verify Wait Warn Watch Wrap
    Write Yield Zero
    """.split()  # noqa: SIM905  as a list, each would take a line
)
"""First words of docstrings; add the verb that yours needs."""


def tracked(*patterns: str) -> list[Path]:
    """Return the files of the repository that match."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that people read: of Python, comments and strings; of other files, all."""
    text = file.read_text("utf-8")
    if file.suffix != ".py":
        yield from enumerate(text.splitlines(), start=1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from enumerate(token.string.splitlines(), start=token.start[0])


def found(files: list[Path]) -> list[str]:
    return [
        f"{file.relative_to(ROOT)}:{number}: {match[0]!r} in {line.strip()[:100]!r}"
        for file in files
        for number, line in prose(file)
        for match in WORDS.finditer(line)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_code_speaks_plain_english(folder: str) -> None:
    assert found(tracked(f"{folder}/*.py", f"{folder}/*.jinja", f"{folder}/*.md")) == []


def test_pages_speak_plain_english() -> None:
    assert found(tracked("*.md", "docs/*.md", "docs/hooks/*.md")) == []


def documented(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and docstring of each function that is not a property."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = [ast.unparse(each) for each in node.decorator_list]
            docstring = ast.get_docstring(node)
            if docstring and not any("property" in each for each in decorators):
                yield node.lineno, docstring


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_of_functions_begin_with_a_verb(folder: str) -> None:
    odd = [
        f"{file.relative_to(ROOT)}:{line}: {docstring.splitlines()[0]}"
        for file in tracked(f"{folder}/*.py")
        if "tests" not in file.relative_to(ROOT).parts
        for line, docstring in documented(file)
        if docstring.split()[0].rstrip(",:;.") not in VERBS
    ]
    assert odd == []
