"""docs/hooks has a page for each hook, with an example that works unchanged."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import re
import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.api_fakes import a_server, ask
from support.paths import DOCS
from tokenizers import Tokenizer, models, pre_tokenizers

from fllm import (
    API_VERSION,
    Backend,
    BackendConfig,
    BackendContext,
    ConfigError,
    DraftedSequence,
    DrafterContext,
    DraftRequest,
    GenerateRequest,
    GrammarContext,
    MetricsContext,
    ModelCard,
    PagePanel,
    ParserContext,
    Placement,
    PlacementContext,
    PluginConfig,
    Reasoning,
    RequestError,
    SamplingParams,
    TemplateContext,
    Text,
    Tool,
    ToolArguments,
    ToolStart,
    Vocabulary,
)
from fllm.chat import ChatTemplate
from fllm.constraints import AnyOf, ConstString, Regex
from fllm.pipeline.request_tracker import RequestTracker
from fllm.plugins import hooks
from fllm.plugins.loader import Plugins, load_plugins
from fllm.plugins.plugin_options import option_tables
from fllm.testing import (
    PagePanelContract,
    PlacementContract,
    ReasoningParserContract,
    ToolParserContract,
    echo_model,
    parse,
    run_contract,
)
from fllm.tokenizer import Tokenizer as ChatTokenizer

DIRECTORY = DOCS / "hooks"
INDEX = (DIRECTORY / "README.md").read_text()
PAGES = {file.stem: file.read_text() for file in sorted(DIRECTORY.glob("fllm_*.md"))}
HOOKS = {name: inspect.signature(hook) for name, hook in vars(hooks).items() if name.startswith("fllm_")}
EXAMPLES = {
    file: (name, f"# {file}\n{code}")
    for name, page in (*PAGES.items(), ("fllm_routes", INDEX))
    for file, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
}

Load = Callable[[str], Plugins]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Return a function that loads an example as a plugin file."""
    before = set(sys.modules)

    def load_example(file: str) -> Plugins:
        path = tmp_path / file
        path.write_text(EXAMPLES[file][1])
        return load_plugins(PluginConfig(paths=(str(path),)))

    yield load_example
    for example in EXAMPLES:
        if (name := Path(example).stem) not in before:
            sys.modules.pop(name, None)


def test_every_hook_has_a_page_and_every_page_a_hook() -> None:
    assert sorted(PAGES) == sorted(HOOKS)


def test_the_index_has_all_hooks_in_the_order_of_the_code() -> None:
    assert re.findall(r"^\| \[`(\w+)`\]\(\1\.md\)", INDEX, re.MULTILINE) == list(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_the_heading_of_a_page_has_the_arguments_of_the_hook(name: str) -> None:
    assert PAGES[name].startswith(f"# {name}({', '.join(HOOKS[name].parameters)})\n")


@pytest.mark.parametrize("name", HOOKS)
def test_every_page_documents_call_result_and_failure(name: str) -> None:
    for word in (r"\*\*Called\*\*", r"\*\*(Yields|Returns)\*\*", r"\*\*Fails\*\*"):
        assert re.search(word, PAGES[name]), word


def test_every_hook_has_an_example() -> None:
    assert {name for name, _ in EXAMPLES.values()} == set(HOOKS)


@pytest.mark.parametrize("file", EXAMPLES)
def test_an_example_is_a_plugin_that_implements_its_hook(file: str, load: Load) -> None:
    report = load(file).reports[-1]
    assert (report.source.rpartition("/")[2], report.error) == (file, None)
    assert report.hooks == [EXAMPLES[file][0]]


def test_the_index_has_the_version_of_the_interface() -> None:
    assert re.findall(r"^FLLM_API_VERSION = (\d+)$", INDEX, re.MULTILINE) == [str(API_VERSION)]
    assert f"The plugin API has a version, now {API_VERSION}." in INDEX


def generate(backend: Backend, ids: list[int], **sampling: Any) -> tuple[list[int], str | None]:
    """Return the generated tokens and the finish reason."""

    async def go() -> tuple[list[int], str | None]:
        await backend.start()
        try:
            prompt = GenerateRequest("r", ids, SamplingParams(**{"max_tokens": 4, **sampling}))
            steps = [step async for step in backend.generate(prompt)]
        finally:
            await backend.stop()
        assert [step.finish_reason for step in steps[:-1]] == [None] * (len(steps) - 1)
        return [token for step in steps for token in step.token_ids], steps[-1].finish_reason

    return asyncio.run(go())


def test_the_echo_backend_returns_the_prompt(load: Load) -> None:
    factory = load("echo_backend.py").backends.load("echo")
    backend = factory(BackendConfig(model="somewhere"), BackendContext())
    assert generate(backend, [3, 1, 2]) == ([3, 1, 2], "stop")
    assert generate(backend, [3, 1, 2], max_tokens=2) == ([3, 1], "length")
    with pytest.raises(RequestError, match="no log-probabilities"):
        generate(backend, [3], logprobs=1)


def test_the_abacus_backend_has_its_device_and_counts(load: Load) -> None:
    backends = load("abacus.py").backends
    assert getattr(backends.entry("abacus"), "devices", None) == ("abacus",)
    backend = backends.load("abacus")(BackendConfig(model="somewhere"), BackendContext())
    assert generate(backend, [7, 8]) == ([9, 10, 11, 12], "length")
    options = {"beads": "2"}
    backend = backends.load("abacus")(BackendConfig(model="somewhere", options=options), BackendContext())
    assert generate(backend, [7, 8]) == ([10, 12, 14, 16], "length")


def test_the_ssh_placement_starts_engines_on_another_machine(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "ssh"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$1" >> "$0.hosts"\nexec sh -c "exec $2"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    factory = load("ssh_placement.py").placements.load("ssh")

    class Checked(PlacementContract):
        timeout = 30.0

        @classmethod
        def placement(cls) -> Placement:
            return factory(PlacementContext(options={"host": "gpu2"}))

    try:
        Checked().test_an_engine_that_is_placed_answers()
        Checked().test_kill_ends_the_engine()
    finally:
        Checked.teardown_class()
    assert Path(f"{fake}.hosts").read_text().split() == ["gpu2", "gpu2"]
    with pytest.raises(ConfigError, match=r"--placement-option host=...: this option is required"):
        factory(PlacementContext())


def test_the_tool_parser_finds_a_call_and_satisfies_its_contract(load: Load) -> None:
    call = '{"name": "f", "arguments": {"x": [1, "é"]}}'

    class Contract(ToolParserContract):
        parser = load("whole_json.py").tool_parsers.load("whole_json")
        samples = (call, "no call", '{"name": "f"}')
        context = ParserContext(tools=(Tool("f"),))
        max_examples = 50

    assert Contract().parse(call) == [ToolStart(0, "f"), ToolArguments(0, '{"x":[1,"é"]}')]
    assert parse(Contract.parser(ParserContext()), [call]) == [Text(call)]
    Contract().test_any_division_gives_the_same_events()
    Contract().test_events_are_well_formed_and_no_text_is_lost()


def test_the_reasoning_parser_splits_text_and_satisfies_its_contract(load: Load) -> None:
    class Contract(ReasoningParserContract):
        parser = load("answer_line.py").reasoning_parsers.load("answer_line")
        samples = ("Let me see.\nAnswer: 42", "\nAnsw", "Answer: none")
        markers = ("\nAnswer:",)
        max_examples = 50

    assert Contract().parse("Let me see.\nAnswer: 42") == [Reasoning("Let me see."), Text(" 42")]
    Contract().test_any_division_gives_the_same_events()
    Contract().test_events_are_well_formed_and_no_text_is_lost()


def test_the_grammar_backend_allows_only_the_texts_of_a_choice(load: Load) -> None:
    vocabulary = Vocabulary([b"y", b"es", b"no", b"n", b"", b"x"], (4,))
    compiler = load("choices.py").grammars.load("choices")(GrammarContext(vocabulary=lambda: vocabulary))
    matcher = compiler.compile(AnyOf((ConstString("yes"), ConstString("no")))).matcher()
    mask = array("i", [-1])
    matcher.fill_bitmask(memoryview(mask))
    assert mask[0] == 0b001101
    assert matcher.accept_token(0)
    assert not matcher.is_accepting
    matcher.fill_bitmask(memoryview(mask))
    assert mask[0] == 0b000010
    assert matcher.accept_token(1)
    assert matcher.is_accepting
    with pytest.raises(RequestError, match="only choices of texts"):
        compiler.compile(Regex("a*"))


def test_the_drafter_completes_a_phrase(load: Load, tmp_path: Path) -> None:
    factory = load("phrases.py").drafters.load("phrases")
    card = ModelCard(tokenizer=str(echo_model(tmp_path)), max_model_len=100)
    tokenizer = ChatTokenizer.load(tmp_path)
    text, phrase = ([*tokenizer.encode(part, add_special_tokens=False)] for part in ("Oh, As an", "As an AI"))
    drafter = factory(
        DrafterContext(
            config=BackendConfig(model="m"),
            card=card,
            vocab_size=tokenizer.vocab_size,
            num_speculative_tokens=9,
            settings={"phrases": ["As an AI"]},
        )
    )
    sequence = DraftedSequence(
        id="one",
        scope=b"",
        token_ids=text,
        prompt_length=1,
        sampling=SamplingParams(max_tokens=9),
        seed=0,
    )
    drafter.start(sequence)
    [drafts] = drafter.propose([DraftRequest(sequence, 9)])
    assert len(drafts) > 0
    assert [*text, *drafts][-len(phrase) :] == phrase


def test_the_command_counts_tokens(load: Load, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    command = load("count_tokens.py").commands.load("count-tokens")
    done = CliRunner().invoke(command, [str(tmp_path), "one two three"])
    assert (done.output, done.exit_code) == ("3\n", 0)


def test_the_template_is_only_for_alpaca_models(load: Load, tmp_path: Path) -> None:
    plugins = load("alpaca_template.py")
    alpaca, other = tmp_path / "Alpaca-7B", tmp_path / "other"
    assert plugins.chat_templates(context_of(other)) is None
    sources = plugins.chat_templates(context_of(alpaca))
    assert sources
    template = ChatTemplate.compile(sources, special_tokens={})
    rendered = template.render([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert rendered == "### Instruction:\nHi\n\n### Response:\n"


def context_of(directory: Path) -> TemplateContext:
    return TemplateContext(card=ModelCard(tokenizer=str(directory), max_model_len=16))


def test_the_collector_counts_slow_requests(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    plugins = load("slow_requests.py")
    found = plugins.collectors(MetricsContext(model_name="m", max_model_len=16))
    [collector] = [each for each in found if type(each).__name__ == "SlowRequests"]
    for seconds in (9.0, 11.0):
        times = iter((100.0, 100.0 + seconds))
        with caplog.at_level(logging.WARNING):
            RequestTracker(f"of {seconds} s", [collector], clock=lambda times=times: next(times)).finish()
    assert getattr(collector, "count", None) == 1
    assert [record.getMessage() for record in caplog.records] == ["of 11.0 s took 11.0 s for 0 tokens"]


def test_the_panel_passes_its_contract(load: Load) -> None:
    plugins = load("model_panel.py")

    class Checked(PagePanelContract):
        def panels(self) -> list[PagePanel]:
            return [panel for panel in plugins.page_panels() if panel.name == "model-sizes"]

    results = list(run_contract(Checked))
    assert len(results) > 4
    assert [result.test for result in results if result.error is not None] == []


def test_the_options_of_a_plugin_are_typed(load: Load) -> None:
    plugins = load("motd.py")
    plugins.read_options(option_tables({"motd": {"text": "hello", "repeat": 2}}))
    response = ask(a_server(plugins=plugins), "GET", "/motd")
    assert response.json() == ["hello", "hello"]


def test_the_route_generates_a_story(load: Load) -> None:
    server = a_server(plugins=load("story.py"))
    assert ask(server, "POST", "/story", json={"about": "cats"}).json() == {"text": "Hello world!"}
    streamed = ask(server, "POST", "/story", json={"about": "cats", "stream": True}).text.splitlines()
    assert [json.loads(line)["text"] for line in streamed] == ["Hello", " world", "!"]
    assert ask(server, "POST", "/story", json={}).json()["error"].startswith("`about`: ")


def test_the_route_is_mounted_next_to_the_built_in_ones(load: Load) -> None:
    server = a_server(plugins=load("ping.py"))
    assert ask(server, "GET", "/ping").json() == {"response": "pong"}
    assert ask(server, "GET", "/health").status_code == 200
