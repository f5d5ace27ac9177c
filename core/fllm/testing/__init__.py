"""Test plugins: a contract for each kind, helpers, and real servers. See docs/testing.md."""

from fllm.events import merge_events
from fllm.plugins.parser_detection import ModelTraits, detect
from fllm.testing.asgi_client import Response, ServerSentEvent
from fllm.testing.backend_contract import BackendContract
from fllm.testing.collector_contract import CollectorContract
from fllm.testing.contract_runner import ContractResult, run_contract
from fllm.testing.drafter_contract import DrafterContract
from fllm.testing.echo import ECHO_PLUGIN, EchoBackend, echo_model
from fllm.testing.page_panel_contract import PagePanelContract
from fllm.testing.parser_contracts import ReasoningParserContract, ToolParserContract
from fllm.testing.parsing import parse
from fllm.testing.placement_contract import PlacementContract
from fllm.testing.plugins import plugins_with
from fllm.testing.recorded_request import RecordedRequest
from fllm.testing.routes_contract import RouteRequest, RoutesContract
from fllm.testing.runner_contract import ModelRunnerContract
from fllm.testing.scripted_engine import ScriptedEngine
from fllm.testing.scripted_server import ScriptedServer
from fllm.testing.server import Serve, Server, serving
from fllm.testing.template_contract import ChatTemplateContract

__all__ = [
    "ECHO_PLUGIN",
    "BackendContract",
    "ChatTemplateContract",
    "CollectorContract",
    "ContractResult",
    "DrafterContract",
    "EchoBackend",
    "ModelRunnerContract",
    "ModelTraits",
    "PagePanelContract",
    "PlacementContract",
    "ReasoningParserContract",
    "RecordedRequest",
    "Response",
    "RouteRequest",
    "RoutesContract",
    "ScriptedEngine",
    "ScriptedServer",
    "Serve",
    "Server",
    "ServerSentEvent",
    "ToolParserContract",
    "detect",
    "echo_model",
    "merge_events",
    "parse",
    "plugins_with",
    "run_contract",
    "serving",
]
