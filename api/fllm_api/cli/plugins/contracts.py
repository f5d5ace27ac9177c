"""Each kind of thing that a plugin offers, and the contract that it is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import rich_click as click
from litestar import Router
from msgspec import Struct
from msgspec.structs import replace

from fllm.config import BackendConfig, MetricsConfig
from fllm.errors import PluginError, UserError
from fllm.interfaces import Backend, BackendContext, Collector, MetricsContext, ParserContext, TemplateContext
from fllm.plugins.loader import Plugins
from fllm.plugins.registry import Registry
from fllm.testing import (
    BackendContract,
    ChatTemplateContract,
    CollectorContract,
    ReasoningParserContract,
    ToolParserContract,
)
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard, Tool
from fllm_api.cli.plugins.results import CheckResult, PartResult, run_contract, told
from fllm_api.cli.plugins.sample_texts import fragments, markers, samples
from fllm_api.cli.plugins.targets import Target

TOOLS = (Tool("f"), Tool("get_weather"))
PROMPTS = ((3, 1, 4, 1, 5), (9, 2, 6), (5, 3, 5, 8, 9, 7, 9))
"""Token ids that every vocabulary has."""
METRICS = MetricsContext(model_name="model", max_model_len=4096, config=MetricsConfig(enabled=True))
LOADED = "it can be loaded"


class CheckOptions(Struct, frozen=True, kw_only=True):
    """On what backends and templates are tried; without a model, no backend is started."""

    model: str | None = None
    max_model_len: int = 512
    options: dict[str, str] = {}
    """``--backend-option``."""


def verdicts(target: Target, trial: CheckOptions) -> Iterator[PartResult]:
    """All checks of one plugin, as they are made."""
    # A file can be imported only once.
    candidate = replace(target.candidate, load=cache(target.candidate.load))
    plugins = Plugins()
    plugins.load(candidate)
    for part, findings in _parts(plugins, candidate.load, target.entry, trial):
        for each in findings:
            yield PartResult(each.check, each.outcome, each.reason, plugin=candidate.name, part=part)


def _parts(
    plugins: Plugins, module: Callable[[], object], only: str | None, trial: CheckOptions
) -> Iterator[tuple[str, Iterable[CheckResult]]]:
    [report] = plugins.reports
    yield "", _whole(plugins)
    if report.error:
        return
    for registry in plugins.registries():
        for name in registry.names():
            if only in (None, name):
                yield f"{registry.kind} {name}", _entry(registry, name, trial)
    if only is None:
        hooks: dict[str, Callable[[], Iterable[CheckResult]]] = {
            "fllm_chat_template": lambda: _template(plugins, module(), trial),
            "fllm_collectors": lambda: _collectors(plugins),
            "fllm_routes": lambda: _routes(plugins),
        }
        for hook, check in hooks.items():
            if hook in report.hooks:
                yield hook, check()


def _whole(plugins: Plugins) -> Iterator[CheckResult]:
    [report] = plugins.reports
    yield _run_unless_interrupted(LOADED, "\n".join(filter(None, (report.error, report.where))))


def _entry(registry: Registry[Any], name: str, trial: CheckOptions) -> Iterator[CheckResult]:
    try:
        target = registry.load(name)
    except PluginError as error:
        yield CheckResult(LOADED, "failed", error.message)
        return
    yield CheckResult(LOADED)
    match registry.kind:
        case "tool-call parser":
            yield from run_contract(_tool_contract(target.factory))
        case "reasoning parser":
            yield from run_contract(_reasoning_contract(target.factory))
        case "backend":
            yield from _backend(target, trial)
        case "command" if not isinstance(target, click.Command):
            yield CheckResult("it is a command of click", "failed", f"it is a {type(target).__name__}")


def _tool_contract(parser: Any) -> type[ToolParserContract]:
    class Checked(ToolParserContract):
        context = ParserContext(tools=TOOLS)

    Checked.parser, Checked.samples, Checked.fragments = parser, samples(parser), fragments(parser)
    return Checked


def _reasoning_contract(parser: Any) -> type[ReasoningParserContract]:
    class Checked(ReasoningParserContract):
        # Every text has "" in it: of a parser that names no markers nobody knows what it leaves whole.
        markers = markers(parser) or [""]

    Checked.parser, Checked.samples, Checked.fragments = parser, samples(parser), fragments(parser)
    return Checked


def _backend(
    factory: Callable[[BackendConfig, BackendContext], Backend], trial: CheckOptions
) -> Iterator[CheckResult]:
    if trial.model is None:
        yield CheckResult("it keeps BackendContract", "skipped", "say on what to start it: --model MODEL")
        return
    config = BackendConfig(model=trial.model, max_model_len=trial.max_model_len, options=trial.options)

    class Checked(BackendContract):
        prompts = PROMPTS
        draws = False  # nobody knows
        logprobs = None

        @classmethod
        def backend(cls) -> Backend:
            return factory(config, BackendContext())

    try:
        Checked.session()
    except Exception as error:  # noqa: BLE001  a stranger's code under test: what it raises is the finding
        yield CheckResult("it starts", "skipped" if isinstance(error, UserError) else "failed", told(error))
        return
    yield CheckResult("it starts")
    yield from run_contract(Checked)


def _template(plugins: Plugins, module: object, trial: CheckOptions) -> Iterator[CheckResult]:
    yield _without_files(plugins)
    directory = Path(trial.model or "")
    if not trial.model or not directory.is_dir():
        reason = "say which directory's model it has templates for: --model DIRECTORY"
    elif not plugins.chat_templates(_context(directory)):
        reason = f"it has no template for {trial.model!r}"
    else:
        yield from run_contract(_template_contract(module, directory))
        return
    yield CheckResult("it keeps ChatTemplateContract", "skipped", reason)


def _without_files(plugins: Plugins) -> CheckResult:
    with TemporaryDirectory() as empty:
        try:
            plugins.chat_templates(_context(Path(empty)))
        except UserError as refusal:
            return _run_unless_interrupted("it passes where a model has no files", refusal.message)
    return _run_unless_interrupted("it passes where a model has no files", _error(plugins))


def _error(plugins: Plugins) -> str | None:
    """What went wrong with the hook that was called last; it is forgotten."""
    [report] = plugins.reports
    error, report.error = report.error, None
    return error


def _run_unless_interrupted(check: str, error: str | None) -> CheckResult:
    return CheckResult(check, "failed", error) if error else CheckResult(check)


def _template_contract(module: object, directory: Path) -> type[ChatTemplateContract]:
    class Checked(ChatTemplateContract):
        plugin = module
        model = directory
        system = tools = False  # not every model has them

    if (directory / "tokenizer.json").is_file():
        Checked.special_tokens = Tokenizer.load(directory).special_tokens
    return Checked


def _collectors(plugins: Plugins) -> Iterator[CheckResult]:
    found = plugins.collectors(METRICS)
    yield _run_unless_interrupted(f"it gives collectors: {len(found)}", _error(plugins))
    for index, each in enumerate(found):
        for finding in run_contract(_collector_contract(plugins, index)):
            yield replace(finding, check=f"{type(each).__name__}: {finding.check}")


def _collector_contract(plugins: Plugins, index: int) -> type[CollectorContract]:
    class Checked(CollectorContract):
        @classmethod
        def collector(cls) -> Collector:
            return plugins.collectors(METRICS)[index]

    return Checked


def _routes(plugins: Plugins) -> Iterator[CheckResult]:
    def mounted(handlers: Iterable[Any]) -> list[Any]:
        return list(Router("/", route_handlers=list(handlers)).routes)

    routes = [route for found in plugins.routes(mounted) for route in found]
    paths = ", ".join(route.path for route in routes)
    yield _run_unless_interrupted(f"its routes can be mounted: {paths or 'none'}", _error(plugins))


def _context(directory: Path) -> TemplateContext:
    return TemplateContext(card=ModelCard(tokenizer=str(directory), max_model_len=4096))
