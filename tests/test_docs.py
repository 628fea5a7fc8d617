"""What the documents show works: options exist, tutorials run from top to bottom, pages build without a warning."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hardspike.arguments import arguments
from hardspike.console import PACKAGES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
_BLOCK = re.compile(r"(<!-- not run: (?P<why>[^>]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL)
_FILE = re.compile(r"Put this into `([\w.]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: `kind` (bash, python, text), why it is not run, and the file that the words above it name."""

    kind: str
    text: str
    why: str | None
    file: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found, end = [], 0
    for match in _BLOCK.finditer(text):
        named = _FILE.search(text, end, match.start())
        found.append(Block(match["kind"], match["text"], match["why"], named and named[1]))
        end = match.end()
    return found


def commands(page: Path) -> list[str]:
    """Lines of a page that call hardspike, prompts and prefixes of the shell gone."""
    lines = [line.removeprefix("$ ").partition("  #")[0] for block in blocks(page) if block.kind in ("", "bash")
             for line in block.text.replace("\\\n", " ").splitlines()]
    called = [re.search(r"(?:^|\| )((?:python -m (?:trainer|export|targets|eval)|hardspike) [a-z].*)", line)
              for line in lines]
    return [match[1].strip() for match in called if match]


@pytest.mark.parametrize("page, command", [(page.relative_to(ROOT).as_posix(), command) for page in PAGES
                                           for command in commands(page)])
def test_every_command_shown_has_such_options(page, command):
    words = command.replace("python -m trainer", "hardspike").replace("python -m", "hardspike").split()[1:]
    package = words.pop(0) if words[0] in PACKAGES else "trainer"
    module, _, function = importlib.import_module(f"{package}.__main__").COMMANDS[words[0]][0].partition(":")
    assert not isinstance(arguments(getattr(importlib.import_module(module), function), page, words[1:]), str)


def test_every_block_says_what_it_is():
    """Shell is run, or says why not; README shows what commands print, and its commands are parsed above."""
    assert sum(block.kind == "bash" for page in TUTORIALS for block in blocks(page)) > 10
    for page in PAGES[1:]:
        for block in blocks(page):
            assert block.kind in ("bash", "python", "text"), f"{page.name}: a block without a kind"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page.stem for page in TUTORIALS])
def test_a_tutorial_runs_from_top_to_bottom(page, tmp_path):
    """In an empty folder, as its reader would; python blocks are run, or saved where the text names a file."""
    places = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
              "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "hardspike"  # not installed here: the same program by its module
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hardspike "$@"\n')
    program.chmod(0o755)
    places["PATH"] = f"{program.parent}{os.pathsep}{places['PATH']}"
    ran = 0
    for block in blocks(ROOT / "docs" / "tutorials" / f"{page}.md"):
        if block.why or block.kind == "text":
            continue
        if block.file:
            (tmp_path / block.file).write_text(block.text)
            continue
        command = ["bash", "-e", "-c", block.text] if block.kind == "bash" else [sys.executable, "-c", block.text]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **places})
        assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    mkdocs = shutil.which("mkdocs", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if not mkdocs:
        pytest.skip("mkdocs is not installed (pip install -e '.[docs]')")
    done = subprocess.run([mkdocs, "build", "--strict", "--site-dir", tmp_path / "site"], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    commands_page = (tmp_path / "site" / "reference" / "commands" / "index.html").read_text()
    assert "hardspike eval sharpness" in commands_page and "python -m" not in commands_page


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path):
    """Its cells one after the other, in a process and a folder of their own; it is kept without outputs."""
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells and not any(cell["outputs"] for cell in cells)
    (tmp_path / "cells.py").write_text("\n\n".join("".join(cell["source"]) for cell in cells))
    done = subprocess.run([sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "0 mismatching spikes" in done.stdout and "accuracy in Loihi 2's integers" in done.stdout
