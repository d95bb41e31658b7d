"""Data flows one way: nothing lower imports anything higher, and no folder is in a circle.

Every import statement counts, also in functions and under ``TYPE_CHECKING``.
"""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

# Each row may import those above it, and itself.
PACKAGES = (
    ("gfgp_cupy",),
    ("models",),
    ("training",),
    ("train_imagenet", "benchmarks", "experiments"),
    ("tests",),
)

# Inside a package a node is a file at its top, or a folder. Each of those on the left is imported
# by none of those on the right, however many nodes may lie in between.
LOWER_THAN = {
    "training": {
        "images": ("loading", "settings", "run", "records", "checkpoints"),
        "processes": ("loading", "settings", "run", "records", "checkpoints"),
        "loading": ("settings", "run", "records", "checkpoints"),
        "options": ("settings", "run", "records", "checkpoints"),
        "settings": ("run", "records", "checkpoints"),
        "records": ("checkpoints",),
        "checkpoints": ("step", "passes", "saving", "epochs", "command"),
        "command": ("compare", "write_shards"),
    },
    "gfgp_cupy": {
        "kernels": ("backends", "ops", "autograd", "functional", "layers", "poolings"),
        "backends": ("ops", "autograd", "functional", "layers", "poolings"),
        "ops": ("autograd", "functional", "layers", "poolings"),
        "autograd": ("functional", "layers", "poolings"),
        "functional": ("layers", "poolings"),
    },
}


def modules_of(package: str) -> dict[str, Path]:
    """Return the files of a package, or the one of a module, by the names they are imported by."""
    single = REPOSITORY / f"{package}.py"
    files = [single] if single.exists() else sorted((REPOSITORY / package).rglob("*.py"))
    names = [".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in files]
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


MODULES = {
    name: file for row in PACKAGES for package in row for name, file in modules_of(package).items()
}


def imported_by(module: str, file: Path) -> Iterator[str]:
    """Yield the names of our own modules that one imports, wherever in its file."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            of_source = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else source for name in of_source]
        else:
            continue
        yield from (name for name in names if name in MODULES)


IMPORTS = {module: set(imported_by(module, file)) for module, file in MODULES.items()}


def node_of(module: str) -> str:
    """Return the part of its package that a module is in: a file at the top, or a folder."""
    return [*module.split("."), "__init__"][1]


def graph_of(package: str) -> dict[str, set[str]]:
    """Return which nodes of the package each of them imports."""
    graph: dict[str, set[str]] = {}
    for module, imported in IMPORTS.items():
        if module.split(".")[0] == package:
            own = {node_of(name) for name in imported if name.split(".")[0] == package}
            graph.setdefault(node_of(module), set()).update(own - {node_of(module)})
    return graph


def reachable(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    """Return the nodes that ``start`` imports, and they in turn."""
    found, left = set(), [start]
    while left:
        new = graph.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def test_packages_import_only_those_before_them():
    rows = {package: number for number, row in enumerate(PACKAGES) for package in row}
    upward = [
        f"{module} imports {name}"
        for module, imported in IMPORTS.items()
        for name in imported
        if rows[name.split(".")[0]] > rows[module.split(".")[0]]
    ]
    assert not upward


@pytest.mark.parametrize("package", LOWER_THAN)
def test_no_node_is_in_a_circle(package):
    try:
        TopologicalSorter(graph_of(package)).prepare()
    except CycleError as error:
        pytest.fail(f"{package}: {' is imported by '.join(error.args[1])}")


@pytest.mark.parametrize("package", LOWER_THAN)
def test_nothing_lower_imports_anything_higher(package):
    graph = graph_of(package)
    named = {*LOWER_THAN[package], *(name for row in LOWER_THAN[package].values() for name in row)}
    assert named <= set(graph), "the table names what is not there"
    upward = [
        f"{lower} imports {higher}"
        for lower, highers in LOWER_THAN[package].items()
        for higher in set(highers) & reachable(lower, graph)
    ]
    assert not upward
