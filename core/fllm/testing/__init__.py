"""For the tests of a plugin: what each kind must satisfy, and a server to try it in. See docs/testing.md."""

from fllm.events import merged
from fllm.testing.backends import BackendContract
from fllm.testing.collectors import CollectorContract
from fllm.testing.echo import ECHO_PLUGIN, EchoBackend, echo_model
from fllm.testing.outcomes import Outcome, outcomes
from fllm.testing.parsers import ReasoningParserContract, ToolParserContract
from fllm.testing.parsing import parse
from fllm.testing.plugins import plugins_with
from fllm.testing.requests import RecordedRequest
from fllm.testing.runners import ModelRunnerContract
from fllm.testing.serving import Serve, Server, serving
from fllm.testing.templates import ChatTemplateContract

__all__ = [
    "ECHO_PLUGIN",
    "BackendContract",
    "ChatTemplateContract",
    "CollectorContract",
    "EchoBackend",
    "ModelRunnerContract",
    "Outcome",
    "ReasoningParserContract",
    "RecordedRequest",
    "Serve",
    "Server",
    "ToolParserContract",
    "echo_model",
    "merged",
    "outcomes",
    "parse",
    "plugins_with",
    "serving",
]
