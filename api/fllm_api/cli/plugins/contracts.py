"""Contract tests for each kind of entry and hook that a plugin offers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import rich_click as click
from litestar import Litestar, Router
from msgspec import Struct
from msgspec.structs import replace

from fllm.config import BackendConfig, MetricsConfig, PluginOption
from fllm.containment import contained
from fllm.drafter import Drafter, DrafterContext, DrafterFactory
from fllm.errors import PluginError, UserError
from fllm.interfaces import (
    Backend,
    BackendContext,
    Collector,
    LoadedParser,
    MetricsContext,
    ParserContext,
    TemplateContext,
)
from fllm.placement import Placement, PlacementContext, PlacementFactory
from fllm.plugins.loader import Plugins
from fllm.plugins.registry import BackendEntry, Registry
from fllm.server_description import PagePanel
from fllm.testing import (
    BackendContract,
    ChatTemplateContract,
    CollectorContract,
    DrafterContract,
    PagePanelContract,
    PlacementContract,
    ReasoningParserContract,
    RouteRequest,
    RoutesContract,
    ScriptedServer,
    ToolParserContract,
)
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard, Tool
from fllm_api.cli.plugins.results import CheckResult, PartResult, check_contract, describe_error
from fllm_api.cli.plugins.route_requests import route_requests
from fllm_api.cli.plugins.sample_texts import fragments, markers, samples
from fllm_api.cli.plugins.targets import Target

_TOOLS = (Tool("f"), Tool("get_weather"))
_PROMPTS = ((3, 1, 4, 1, 5), (9, 2, 6), (5, 3, 5, 8, 9, 7, 9))
"""Prompts of token ids that are in every vocabulary."""
_METRICS = MetricsContext(model_name="model", max_model_len=4096, config=MetricsConfig(enabled=True))
LOADS = "loads without errors"


class CheckOptions(Struct, frozen=True, kw_only=True):
    """Options of the checks of backends and chat templates. Without a model, no backend is started."""

    model: str | None = None
    default_model: str | None = None
    """Model for backends of a device, if none is given."""
    max_model_len: int = 512
    options: dict[str, str] = {}
    """Values of ``--backend-option``."""
    placement_options: dict[str, str] = {}
    """Values of ``--placement-option``."""
    plugin_options: tuple[PluginOption, ...] = ()
    """Values of options of plugins."""


def check_plugin(target: Target, options: CheckOptions) -> Iterator[PartResult]:
    """Run all checks of one plugin, and yield each result."""
    # A file can be imported only once.
    candidate = replace(target.candidate, load=cache(target.candidate.load))
    plugins = Plugins()
    plugins.load(candidate)
    plugins.read_options(options.plugin_options)
    for part, results in _parts(plugins, candidate.load, target.entry, options):
        for each in results:
            yield PartResult(each.check, each.outcome, each.reason, plugin=candidate.name, part=part)


def _parts(
    plugins: Plugins, module: Callable[[], object], only: str | None, options: CheckOptions
) -> Iterator[tuple[str, Iterable[CheckResult]]]:
    [report] = plugins.reports
    yield "", _check_loading(plugins)
    if report.error or plugins.option_problems():
        return
    for registry in plugins.registries():
        for name in registry.names():
            if only in (None, name):
                yield f"{registry.kind} {name}", _check_entry(registry, name, options)
    if only is None:
        hooks: dict[str, Callable[[], Iterable[CheckResult]]] = {
            "fllm_chat_template": lambda: _check_template(plugins, module(), options),
            "fllm_collectors": lambda: _check_collectors(plugins),
            "fllm_page_panels": lambda: _check_panels(plugins),
            "fllm_routes": lambda: _check_routes(plugins),
        }
        for hook, check in hooks.items():
            if hook in report.hooks:
                yield hook, check()


def _check_loading(plugins: Plugins) -> Iterator[CheckResult]:
    [report] = plugins.reports
    yield _result(LOADS, "\n".join(filter(None, (report.error, report.where))))
    if problems := plugins.option_problems():
        yield CheckResult("has valid options", "failed", "\n".join(problems))


def _check_entry(registry: Registry[Any], name: str, options: CheckOptions) -> Iterator[CheckResult]:
    try:
        target = registry.load(name)
    except PluginError as error:
        yield CheckResult(LOADS, "failed", error.message)
        return
    yield CheckResult(LOADS)
    match registry.kind:
        case "tool-call parser":
            yield from check_contract(_tool_parser_contract(target))
        case "reasoning parser":
            yield from check_contract(_reasoning_parser_contract(target))
        case "backend":
            entry = registry.entry(name)
            has_device = isinstance(entry, BackendEntry) and bool(entry.devices)
            yield from _check_backend(target, options, has_device=has_device)
        case "drafter":
            yield from _check_drafter(target)
        case "placement":
            yield from _check_placement(target, options.placement_options)
        case "command" if not isinstance(target, click.Command):
            yield CheckResult(
                "is a click command", "failed", f"it is a {type(target).__name__}; it must be a click.Command"
            )


def _tool_parser_contract(loaded: LoadedParser) -> type[ToolParserContract]:
    class Checked(ToolParserContract):
        context = ParserContext(tools=_TOOLS, options=loaded.options)

    parser = loaded.factory
    Checked.parser, Checked.samples, Checked.fragments = parser, samples(parser), fragments(parser)
    return Checked


def _reasoning_parser_contract(loaded: LoadedParser) -> type[ReasoningParserContract]:
    parser = loaded.factory

    class Checked(ReasoningParserContract):
        context = ParserContext(options=loaded.options)
        # Every text contains "": for a parser that names no markers, the text it keeps is unknown.
        markers = markers(parser) or [""]

    Checked.parser, Checked.samples, Checked.fragments = parser, samples(parser), fragments(parser)
    return Checked


def _check_backend(
    factory: Callable[[BackendConfig, BackendContext], Backend], options: CheckOptions, *, has_device: bool
) -> Iterator[CheckResult]:
    model = options.model or (options.default_model if has_device else None)
    if model is None:
        yield CheckResult("passes BackendContract", "skipped", "name a model to start it with: --model MODEL")
        return
    config = BackendConfig(model=model, max_model_len=options.max_model_len, options=options.options)

    class Checked(BackendContract):
        prompts = _PROMPTS
        supports_sampling = False  # unknown for a third-party backend
        supports_logprobs = None

        @classmethod
        def backend(cls) -> Backend:
            return factory(config, BackendContext())

    errors: list[BaseException] = []
    with contained(errors.append):
        Checked.session()
    if errors:
        is_user_error = isinstance(errors[0], UserError)
        yield CheckResult("starts", "skipped" if is_user_error else "failed", describe_error(errors[0]))
        return
    yield CheckResult("starts")
    yield from check_contract(Checked)


def _check_placement(factory: PlacementFactory, options: Mapping[str, str]) -> Iterator[CheckResult]:
    context = PlacementContext(options=options)

    class Checked(PlacementContract):
        @classmethod
        def placement(cls) -> Placement:
            return factory(context)

    async def open_and_close() -> None:
        placement = factory(context)
        try:
            await placement.open()
        finally:
            await placement.close()

    errors: list[BaseException] = []
    with contained(errors.append):
        asyncio.run(open_and_close())
    if errors:
        is_user_error = isinstance(errors[0], UserError)
        yield CheckResult("opens", "skipped" if is_user_error else "failed", describe_error(errors[0]))
        return
    yield CheckResult("opens")
    yield from check_contract(Checked)


def _check_drafter(factory: DrafterFactory) -> Iterator[CheckResult]:
    class Checked(DrafterContract):
        @classmethod
        def drafter(cls, context: DrafterContext) -> Drafter:
            return factory(context)

    errors: list[BaseException] = []
    with contained(errors.append):
        factory(DrafterContract.context()).close()
    if errors:
        is_user_error = isinstance(errors[0], UserError)
        yield CheckResult("is created", "skipped" if is_user_error else "failed", describe_error(errors[0]))
        return
    yield CheckResult("is created")
    yield from check_contract(Checked)


def _check_template(plugins: Plugins, module: object, options: CheckOptions) -> Iterator[CheckResult]:
    yield _check_model_without_files(plugins)
    directory = Path(options.model or "")
    if not options.model or not directory.is_dir():
        reason = "name a directory with a model that it has templates for: --model DIRECTORY"
    elif not plugins.chat_templates(_template_context(directory)):
        reason = f"the plugin has no template for {options.model!r}"
    else:
        yield from check_contract(_template_contract(module, directory))
        return
    yield CheckResult("passes ChatTemplateContract", "skipped", reason)


def _check_model_without_files(plugins: Plugins) -> CheckResult:
    with TemporaryDirectory() as empty:
        try:
            plugins.chat_templates(_template_context(Path(empty)))
        except UserError as error:
            return _result("does not fail for a model without files", error.message)
    return _result("does not fail for a model without files", _take_error(plugins))


def _take_error(plugins: Plugins) -> str | None:
    """Return the error of the hook that was called last, and clear it."""
    [report] = plugins.reports
    error, report.error = report.error, None
    return error


def _result(check: str, error: str | None) -> CheckResult:
    return CheckResult(check, "failed", error) if error else CheckResult(check)


def _template_contract(module: object, directory: Path) -> type[ChatTemplateContract]:
    class Checked(ChatTemplateContract):
        plugin = module
        model = directory
        supports_system_role = supports_tools = False  # not every template supports them

    if (directory / "tokenizer.json").is_file():
        Checked.special_tokens = Tokenizer.load(directory).special_tokens
    return Checked


def _check_collectors(plugins: Plugins) -> Iterator[CheckResult]:
    collectors = plugins.collectors(_METRICS)
    yield _result(f"returns collectors: {len(collectors)}", _take_error(plugins))
    for index, each in enumerate(collectors):
        for result in check_contract(_collector_contract(plugins, index)):
            yield replace(result, check=f"{type(each).__name__}: {result.check}")


def _collector_contract(plugins: Plugins, index: int) -> type[CollectorContract]:
    class Checked(CollectorContract):
        @classmethod
        def collector(cls) -> Collector:
            return plugins.collectors(_METRICS)[index]

    return Checked


def _check_panels(plugins: Plugins) -> Iterator[CheckResult]:
    found = plugins.page_panels()
    error = _take_error(plugins)
    yield _result(f"yields panels: {', '.join(panel.name for panel in found) or 'none'}", error)
    if error is not None:
        return

    class Checked(PagePanelContract):
        def panels(self) -> Sequence[PagePanel]:
            return found

    yield from check_contract(Checked)


def _check_routes(plugins: Plugins) -> Iterator[CheckResult]:
    def mounted(handlers: Iterable[Any]) -> list[Any]:
        return list(Router("/", route_handlers=list(handlers)).routes)

    routes = [route for group in plugins.routes(mounted) for route in group]
    paths = [route.path for route in routes]
    error = _take_error(plugins)
    yield _result(f"routes can be mounted: {', '.join(paths) or 'none'}", error)
    if error is None:
        yield from _check_requests(plugins, paths)


def _check_requests(plugins: Plugins, paths: Sequence[str]) -> Iterator[CheckResult]:
    errors: list[BaseException] = []
    found: list[RouteRequest] = []
    with contained(errors.append):
        app = ScriptedServer(loaded=plugins).app
        assert isinstance(app, Litestar)
        found += route_requests(app, paths)
    if errors:
        yield CheckResult("starts", "failed", describe_error(errors[0]))
        return

    class Checked(RoutesContract):
        requests = found

        def server(self, **settings: Any) -> ScriptedServer:
            return ScriptedServer(loaded=plugins, **settings)

    yield from check_contract(Checked)


def _template_context(directory: Path) -> TemplateContext:
    return TemplateContext(card=ModelCard(tokenizer=str(directory), max_model_len=4096))
