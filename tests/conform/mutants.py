"""Faults that we plant in our own code, one at a time, to see whether the tests would notice: `make mutants`.

Each is one text replaced in one file of a copy of the tree. A process of its own then runs graphs of the campaign
through the relations that concern it, until one differs, and if none does, the tests named beside it. A mutant that
nothing notices is a survivor: a hole in the tests, or a change that changes nothing, with the reason why.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = ("hardspike", "trainer", "targets", "export", "eval", "tests")
GRAPHS = 360
"""Tried before the tests are."""
TIMEOUT = 900
"""Seconds of one mutant; whatever hangs is noticed as well."""


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new` at its first place in `file`.

    Args:
        relations: names of `tests.conform.relations.RELATIONS`, comma-separated.
        tests: files and options for pytest where the campaign finds nothing.
        equal: why it changes nothing that can be seen, where that is known.
        kind: of graphs, where one shows it best.
    """

    file: str
    old: str
    new: str
    relations: str
    tests: str = ""
    equal: str = ""
    kind: str | None = None


def listed() -> list[Mutant]:
    """All of `mutants.yaml`."""
    groups = yaml.safe_load(Path(__file__).with_name("mutants.yaml").read_text())
    return [Mutant(group["file"], relations=group["relations"], tests=group["tests"], **mutant)
            for group in groups for mutant in group["mutants"]]


def names(mutant: Mutant) -> str:
    def shown(text: str) -> str:
        return " ".join(text.split())[:60]

    return f"{mutant.file}: {shown(mutant.old)}  =>  {shown(mutant.new)}"


def main() -> int:
    """Exit status 1 where a mutant survives without a reason, or does not apply any more."""
    parser = argparse.ArgumentParser(prog="python -m tests.conform.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants whose line holds one of these")
    parser.add_argument("--graphs", type=int, default=GRAPHS)
    parser.add_argument("--no-tests", action="store_true", help="the campaign alone")
    options = parser.parse_args()
    chosen = [m for m in listed() if not options.words or any(word in names(m) for word in options.words)]
    counts: Counter = Counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(
            ".git", ".venv", "__pycache__", ".*_cache", "runs", ".cache"))
        _imports()
        for mutant in [None, *chosen]:
            began = time.monotonic()
            result = _tried(mutant, tree, Path(folder), options.graphs, not options.no_tests)
            counts[result.split(":")[0]] += mutant is not None
            print(f"{time.monotonic() - began:5.0f} s  {result:60}  {names(mutant) if mutant else 'nothing changed'}",
                  flush=True)
            if mutant is None and result != "survives":
                print("the tree itself is not well: nothing can be said")
                return 1
    killed = counts["caught"]
    print(f"{killed} of {sum(counts.values())} caught; {dict(counts)}")
    return int(bool(counts["survives"] or counts["does not apply"]))


def _imports() -> None:
    """What takes seconds, once for all children; nothing of the project."""
    import networkx  # noqa: F401
    import nir  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import pytest  # noqa: F401
    import torch  # noqa: F401


def _tried(mutant: Mutant | None, tree: Path, folder: Path, graphs: int, tests: bool) -> str:
    """caught, survives, equal or does not apply, and by what."""
    if mutant is None:
        return _child(Mutant("", "", "", "naive,onnx,folded"), tree, folder, graphs // 12)
    path = tree / mutant.file
    text = path.read_text()
    if mutant.old not in text:
        return "does not apply"
    path.write_text(text.replace(mutant.old, mutant.new, 1))
    try:
        result = _child(mutant if tests else replace(mutant, tests=""), tree, folder, graphs)
    finally:
        path.write_text(text)
    return f"equal: {mutant.equal}" if result == "survives" and mutant.equal else result


def _child(mutant: Mutant, tree: Path, folder: Path, graphs: int) -> str:
    said = folder / "said"
    said.write_text("caught: the process died")
    child = os.fork()
    if not child:
        os.setsid()
        log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            said.write_text(_look(mutant, tree, folder, graphs))
        except BaseException as error:
            said.write_text(f"caught: {type(error).__name__}")
        finally:
            os._exit(0)
    end = time.monotonic() + TIMEOUT
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "caught: it hangs"
        time.sleep(0.05)
    return said.read_text()


def _look(mutant: Mutant, tree: Path, folder: Path, graphs: int) -> str:
    """In the child: the campaign, then the tests, on the changed tree."""
    for name in [name for name in sys.modules if name.split(".")[0] in PROJECT]:
        del sys.modules[name]
    sys.path[:] = [str(tree), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    sys.dont_write_bytecode = True
    os.chdir(tree)
    os.environ["HARDSPIKE_CACHE"] = str(folder / "cache")
    import torch
    torch.set_num_threads(1)
    from tests.conform.campaign import campaign
    names, tests = mutant.relations.split(","), mutant.tests.split()
    fewer = graphs // 6 if {"c", "native"} & {*names} else graphs
    for find in campaign(7, range(fewer), 0, names, kind=mutant.kind):
        return f"caught: graph {find.number}, {find.relation}"
    if tests:
        import pytest
        if status := pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]):
            return "caught: the tests" if status == 1 else f"caught: pytest ends with {int(status)}"
    return "survives"


if __name__ == "__main__":
    sys.exit(main())
