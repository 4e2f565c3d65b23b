"""The house: rooms import only the rooms below them, libraries stay in their room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "trio_ai_stream"
# From the top down; a room imports only what stands after it, and itself.
ORDER = [
    "__main__",
    "cli",
    "app",
    "app_factory",
    "chat_client",
    "http",
    "server",
    "simulator",
    "billing",
    "admission",
    "dialects",
    "upstream",
    "resume",
    "stream",
    "telemetry",
    "wire",
    "tracing",
    "settings",
]
# Library: the rooms that import it.
HOMES = {
    "quart": {"http"},
    "quart_trio": {"http"},
    "quart_cors": {"http"},
    "hypercorn": {"server"},
    "h2": {"server"},
    "h11": set(),
    "httpx": {"upstream", "chat_client"},
    "httptools": {"upstream", "simulator"},
    "coredis": {"admission"},
    "prometheus_client": {"telemetry"},
    "opentelemetry": {"telemetry"},
    "asyncio": set(),
    "cancel_lab": {"cli"},
    "markdown_it": {"http", "chat_client"},
    "rich": {"chat_client"},
    "dotenv": {"settings"},
}
MODULES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The room that a module belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """All that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_keeps_the_rules_of_the_house(path: Path) -> None:
    """It imports only lower rooms and its room's libraries, and holds one idea."""
    room = room_of(path)
    text = path.read_text()
    if room == "__init__":
        return
    below = set(ORDER[ORDER.index(room) :])
    for name in imports_of(path):
        if name.startswith("trio_ai_stream."):
            assert name.split(".")[1] in below, f"{room} imports {name} from above"
        home = HOMES.get(name.split(".")[0])
        assert home is None or room in home, f"{room} imports {name}, not at home here"
    assert len(text.splitlines()) <= 500, "longer than one idea"
    assert "from trio import" not in text
    assert ast.get_docstring(ast.parse(text)), "says in a sentence what it is for"


def module_name(path: Path) -> str:
    """The dotted name of a module; a package has its folder's."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_modules(path: Path) -> set[str]:
    """The modules of ours that a module names, under TYPE_CHECKING as well."""
    found = set()
    names = {module_name(other) for other in MODULES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & names) or {node.module or ""}
    return (found & names) - {module_name(path)}


def repeated(pairs: list[tuple[str, str]]) -> dict[str, set[str]]:
    """The names that occur more than once, each with the rooms that have it."""
    rooms: dict[str, list[str]] = {}
    for name, room in pairs:
        rooms.setdefault(name, []).append(room)
    return {name: set(found) for name, found in rooms.items() if len(found) > 1}


def test_no_room_imports_in_a_circle() -> None:
    """No module reaches itself by imports, those for type checking counted."""
    graph = {module_name(path): imported_modules(path) for path in MODULES}
    while leaves := {name for name, inner in graph.items() if not inner}:
        graph = {name: inner - leaves for name, inner in graph.items() if inner}
    # What is left stands in a circle, or above one: take those above away.
    while tops := graph.keys() - set().union(*graph.values()):
        graph = {name: inner for name, inner in graph.items() if name not in tops}
    assert not graph, f"in circles: {sorted(graph)}"


@pytest.mark.parametrize("part", ["simulator", "upstream.transport"])
def test_a_part_that_could_leave_imports_no_other(part: str) -> None:
    """It stands on its own: it could be a distribution tomorrow."""
    inside = f"trio_ai_stream.{part}"
    for path in MODULES:
        if module_name(path).startswith(inside):
            for name in imported_modules(path):
                assert name.startswith(inside), f"{module_name(path)} imports {name}"


def test_the_transport_imports_nothing_of_the_other_rooms() -> None:
    """Upstream's transport could be a package of its own."""
    own = "trio_ai_stream.upstream.transport"
    for path in (SOURCE / "upstream" / "transport").glob("*.py"):
        others = {name for name in imported_modules(path) if not name.startswith(own)}
        assert not others, f"{path.name} imports {others}"


def test_a_module_name_occurs_once() -> None:
    """A file's name says which module is meant, without its folder."""
    pairs = [
        (path.stem, room_of(path))
        for path in MODULES
        if path.stem not in {"__init__", "__main__"}
    ]
    assert not repeated(pairs)


def test_a_class_name_occurs_once() -> None:
    """A class's name says which class is meant, without its module."""
    pairs = [
        (node.name, room_of(path))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert not repeated(pairs)


def test_the_pure_rooms_neither_wait_nor_log() -> None:
    """`wire/` has no await, no clock and no log."""
    for path in (SOURCE / "wire").rglob("*.py"):
        assert "await " not in path.read_text()
        assert not imports_of(path) & {"trio", "loguru", "logging", "time"}


def test_the_order_is_that_of_the_document() -> None:
    """docs/architecture.md lists the rooms in the order that is tested here."""
    document = (SOURCE.parent.parent / "docs" / "architecture.md").read_text()
    rows = [line.split("`")[1] for line in document.splitlines() if line[:3] == "| `"]
    listed = [row.rstrip("/").removesuffix(".py") for row in rows]
    assert [name for name in listed if name in ORDER] == [
        name for name in ORDER if name in listed
    ]
    assert set(ORDER) - set(listed) == {"__main__"}


def test_the_server_stands_by_itself() -> None:
    """`server/` imports nothing of the other rooms: limits come as plain values."""
    for path in (SOURCE / "server").rglob("*.py"):
        ours = {n for n in imports_of(path) if n.startswith("trio_ai_stream.")}
        assert {name.split(".")[1] for name in ours} <= {"server"}, path
