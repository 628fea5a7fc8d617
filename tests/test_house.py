"""The house rules that a program can check: what imports what, and how long things may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"hardspike": set(), "trainer": {"hardspike"}, "targets": {"hardspike"},
              "export": {"hardspike", "trainer", "targets"}, "eval": {"hardspike", "trainer", "targets", "export"}}
"""The floors: each package, and the ones that it stands on."""
LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8
KERNELS = "trainer/neurons/scan_triton_kernels.py"
"""A Triton kernel is one function without local ones, and takes every pointer, size and switch by itself."""


def files(package: str) -> list[Path]:
    """Python files of a package, or of a module of that name."""
    return sorted([*ROOT.glob(f"{package}.py"), *ROOT.glob(f"{package}/**/*.py")])


def name(path: Path) -> str:
    """What a file is imported as."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names of what is imported, down to the objects."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: neither bodies of functions nor what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import_time(child)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_nothing_imports_upward_or_across(package):
    """Imports within functions and for annotations count too: a floor that is needed later is needed."""
    found = {(name(path), imported) for path in files(package) for imported in imports(ast.walk(ast.parse(
        path.read_text())))}
    forbidden = {*MAY_IMPORT, "tests", "benchmarks"} - MAY_IMPORT[package] - {package}
    assert files(package) and [pair for pair in sorted(found) if pair[1].split(".")[0] in forbidden] == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_circle_between_the_folders_of_a_package(package):
    """At import time; a file that lies in no folder counts as one."""
    graph = nx.DiGraph()
    for path in files(package):
        for imported in imports(at_import_time(ast.parse(path.read_text()))):
            here, there = (f"{dotted}.".split(".")[1] for dotted in (name(path), imported))
            if imported.split(".")[0] == package and here and there and here != there:
                graph.add_edge(here, there)
    assert [sorted(circle) for circle in nx.strongly_connected_components(graph) if len(circle) > 1] == []


@pytest.mark.parametrize("package", [*MAY_IMPORT, "benchmarks", "tests"])
def test_files_functions_and_signatures_are_short(package):
    found = []
    for path in files(package):
        text, where = path.read_text(), path.relative_to(ROOT).as_posix()
        if (lines := len(text.splitlines())) > LINES:
            found.append(f"{where}: {lines} lines, at most {LINES}")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or where == KERNELS:
                continue
            lines, taken = node.end_lineno - node.lineno + 1, node.args
            parameters = len([*taken.posonlyargs, *taken.args, *taken.kwonlyargs]) + bool(taken.vararg) \
                + bool(taken.kwarg)
            if lines > FUNCTION_LINES:
                found.append(f"{where}: {node.name}: {lines} lines, at most {FUNCTION_LINES}")
            if parameters > PARAMETERS:
                found.append(f"{where}: {node.name}: {parameters} parameters, at most {PARAMETERS}")
    assert found == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_file_says_what_it_is(package):
    assert [name(path) for path in files(package) if path.read_text().strip() and not ast.get_docstring(ast.parse(
        path.read_text()))] == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_package_says_that_it_has_types(package):
    assert (ROOT / package / "py.typed").is_file()
