"""The commands of the chat: lines that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fllm.errors import ConfigError
from fllm_terminal.session import Session
from fllm_terminal.settings import NAMES, read_tools
from fllm_terminal.text import safe


class Command(Struct, frozen=True):
    """One command."""

    usage: str
    help: str
    run: Callable[[Session, Console, str], bool]
    """Returns whether an answer is to be generated. Raises `UserError` if the argument is invalid."""
    ends: bool = False
    """Whether the chat ends."""


def find_command(line: str) -> tuple[Command, str]:
    """Return the command of a line, and its argument. Raise `ConfigError` if there is none of this name."""
    name, _, argument = line.removeprefix("/").partition(" ")
    name = {"quit": "exit", "bye": "exit", "?": "help", "new": "clear"}.get(name, name)
    if name not in COMMANDS:
        raise ConfigError(f"there is no command /{safe(name)}; /help lists them")
    return COMMANDS[name], argument.strip()


def _help(_: Session, console: Console, __: str) -> bool:
    table = Table.grid(padding=(0, 2))
    for command in COMMANDS.values():
        table.add_row(f"[cyan]{escape(command.usage)}[/]", command.help)
    table.add_row('[cyan]"""[/]', "Begin and end a message of several lines")
    console.print(table)
    return False


def _system(session: Session, console: Console, text: str) -> bool:
    settings = session.conversation.settings
    if text:
        settings.system = "" if text == "-" else text
    console.print(safe(settings.system) or "no system prompt", style="dim", markup=False)
    return False


def _set(session: Session, console: Console, argument: str) -> bool:
    sampling = session.conversation.settings.sampling
    name, _, value = argument.replace("=", " ", 1).partition(" ")
    if name:
        sampling.change(name, value.strip())
    chosen = sampling.fields()
    table = Table.grid(padding=(0, 2))
    for each in NAMES:
        table.add_row(each, str(chosen.get(each, "[dim]the server's[/]")))
    console.print(table)
    return False


def _model(session: Session, console: Console, name: str) -> bool:
    settings = session.conversation.settings
    if name:
        settings.model = name
    for each in session.models:
        mark = "*" if each == settings.model else " "
        console.print(f"{mark} {safe(each)}", markup=False)
    if settings.model not in session.models:
        console.print(f"* {safe(settings.model)}", markup=False)
    return False


def _tools(session: Session, console: Console, path: str) -> bool:
    settings = session.conversation.settings
    if path:
        settings.tools = [] if path == "-" else read_tools(_path(path))
    names = [str(tool.get("function", {}).get("name")) for tool in settings.tools]
    console.print(safe(", ".join(names)) or "no tools", style="dim", markup=False)
    return False


def _image(session: Session, console: Console, path: str) -> bool:
    session.conversation.attach_image(_path(path))
    console.print("sent with your next message", style="dim")
    return False


def _save(session: Session, console: Console, path: str) -> bool:
    session.conversation.save(_path(path))
    console.print(f"saved {len(session.conversation.messages)} messages", style="dim")
    return False


def _load(session: Session, console: Console, path: str) -> bool:
    session.conversation.load(_path(path))
    console.print(f"loaded {len(session.conversation.messages)} messages", style="dim")
    return False


def _clear(session: Session, console: Console, _: str) -> bool:
    session.conversation.clear()
    console.print("a new conversation", style="dim")
    return False


def _retry(session: Session, _: Console, __: str) -> bool:
    if not session.conversation.unanswer():
        raise ConfigError("there is no message to answer")
    return True


def _undo(session: Session, console: Console, _: str) -> bool:
    if not session.conversation.take_back():
        raise ConfigError("there is no message to take back")
    console.print(f"{len(session.conversation.messages)} messages are left", style="dim")
    return False


def _exit(_: Session, __: Console, ___: str) -> bool:
    return False


def _path(text: str) -> Path:
    if not text:
        raise ConfigError("name a file")
    return Path(text).expanduser()


COMMANDS = {
    "help": Command("/help", "Show this list", _help),
    "system": Command("/system [TEXT]", "Show or set the system prompt; - removes it", _system),
    "set": Command("/set [NAME VALUE]", "Show or set sampling settings; without a value: the server's", _set),
    "model": Command("/model [NAME]", "Show the models, or take another one", _model),
    "tools": Command(
        "/tools [FILE]", "Show the tools, or read them from a JSON file; - removes them", _tools
    ),
    "image": Command("/image FILE", "Send an image with the next message", _image),
    "retry": Command("/retry", "Answer your last message again", _retry),
    "undo": Command("/undo", "Take your last message back", _undo),
    "clear": Command("/clear", "Begin a new conversation", _clear),
    "save": Command("/save FILE", "Save the conversation as JSON: the body of a Chat request", _save),
    "load": Command("/load FILE", "Load a saved conversation", _load),
    "exit": Command("/exit", "Leave; so does Ctrl-D", _exit, ends=True),
}
