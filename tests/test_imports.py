"""Imports point down only; rooms that must not know each other do not."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "higan"

# From the ground up: a module imports from lower rows only. Names that do not exist yet bind nobody.
ORDER = (
    {"spelling", "filenames"},
    {"types", "errors", "devices", "files"},
    {"layers", "weights", "linear", "named", "blame"},
    {"checkpoints"},
    {"extras", "preprocessing"},
    {"store"},
    {"engines"},
    {"population", "conformance", "samples"},
    {"editing", "boundaries", "trial", "drawing"},
    {"statistics", "refits", "stepping"},
    {"rescoring"},
    {"spread"},
    {"adaptive"},
    {"directions", "hierarchy", "transitions", "trust"},
    {"rooms", "responses", "comparison"},
    {"study"},
    {"report"},
    {"benchmark"},
    {"web"},
    {"studio", "userstudy"},
    {"cli"},
)
RANK = {name: rank for rank, row in enumerate(ORDER) for name in row}
ADAPTERS = {"generators", "scorers", "segmenters"}
BELOW_ADAPTERS = {
    "types", "errors", "blame", "layers", "weights", "named", "checkpoints", "extras", "preprocessing", "devices",
}  # fmt: skip
# The front doors open things by name; everything else is handed what it works on.
FRONT_DOORS = {"higan", "cli", "studio", "userstudy", "rooms"}


def room(module):
    """``higan.rooms.render`` → ``rooms``; the package itself → ``higan``."""
    return module.split(".")[1] if "." in module else module


def module_name(path):
    parts = ("higan", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imported(path):
    """Every module of this package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "higan")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names if (node.module or "").split(".")[0] == "higan" else ():
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


EDGES = sorted({(source, target) for source, path in MODULES.items() for target in imported(path)})
BETWEEN = [(source, target) for source, target in EDGES if room(source) != room(target)]


def test_there_is_something_to_check():
    assert {("higan.population", "higan.store"), ("higan.editing", "higan.layers")} <= set(BETWEEN)


@pytest.mark.parametrize(("source", "target"), BETWEEN)
def test_imports_point_down(source, target):
    a, b = room(source), room(target)
    if a in ADAPTERS:
        assert b in BELOW_ADAPTERS, "adapters stand on protocols and files, and never on each other"
    if b in ADAPTERS | {"rooms"}:
        assert a in FRONT_DOORS, "algorithms know the protocols, never an adapter"
    if b == "higan":
        assert a in FRONT_DOORS, "no module imports the package that gathers them"
    if a in RANK and b in RANK:
        assert RANK[b] < RANK[a], f"{b} is not below {a}"


def test_no_module_imports_itself_by_detours():
    graph = {source: {target for s, target in EDGES if s == source} for source in MODULES}
    done, path = set(), []

    def visit(module):
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for target in graph.get(module, ()):
                visit(target)
            done.add(path.pop())

    for module in graph:
        visit(module)
