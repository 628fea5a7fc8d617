"""Where commands write: refused before the work begins."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from hardspike import OutFile, OutFolder, OutText, run

WRITTEN = ("out", "json", "csv", "plot", "picture", "hub", "folder")
PACKAGES = ("trainer", "export", "targets", "eval")
CALLS = []


@dataclass(frozen=True)
class Tables:
    """Files.

    Args:
        csv: the table
    """

    csv: OutText | None = None


@dataclass
class Config:
    """A run.

    Args:
        out: folder
    """

    out: OutFolder = Path("runs")


def measure(*models: Path, json: OutText | None = None, plot: OutFile | None = None, tables: Tables = Tables(),
            input: Path | None = None):
    """Measure."""
    CALLS.append((json, plot, tables.csv))


def train(config: Config):
    """Train."""
    CALLS.append(config.out)


def write(model: Path, out: OutFile = Path("spikes.npz")):
    """Write."""
    CALLS.append(out)


def call(*words):
    """Status, and whether the command was called."""
    CALLS.clear()
    try:
        status = run("tests", {"measure": measure, "train": train, "write": write}, list(map(str, words)))
    except SystemExit as leaving:
        status = leaving.code
    return status, bool(CALLS)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.pt").write_text("model")
    return tmp_path


@pytest.mark.parametrize(("words", "status", "said"), [
    (["measure", "a.pt", "--json", "folder"], 1, "--json folder: is a folder"),
    (["measure", "a.pt", "--csv", "a.pt/t"], 1, "--csv a.pt/t: cannot be written (Not a directory)"),
    (["measure", "a.pt", "--plot", "/dev/null"], 1, "--plot /dev/null: is a device"),
    (["measure", "a.pt", "--json", "x" * 300], 1, "File name too long"),
    (["train", "--out", "a.pt"], 1, "--out a.pt: is a file; give the name of a folder"),
    (["train", "--config", "c.yaml"], 1, "--out folder/../a.pt: is a file"),
    (["write", "a.pt", "-o", "folder"], 1, "--out folder: is a folder"),
    (["measure", "a.pt", "--plot", "-"], 2, "--plot -: is no text for standard output; give the name of a file (./-"),
    (["train", "--out", "-"], 2, "give the name of a folder"),
    (["measure", "t.txt", "--json", "folder/../t.txt"], 2, "--json folder/../t.txt: is what is read, too"),
    (["measure", "a.pt", "--input", "s", "--csv", "s"], 2, "--csv s: is what is read, too"),
    (["measure", "a.pt", "--json", "t", "--csv", "t"], 2, "--csv t: is that of --json, too"),
    (["measure", "a.pt", "--json", "-", "--csv", "-"], 2, "--csv -: is that of --json, too"),
    (["measure", "a.pt", "--json", "b.nir"], 2, "--json b.nir: is text, which a .nir file does not hold"),
    (["train", "--config", "c.yaml", "--config", "d.yaml"], 1, "is a file"),
])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(words, status, said, here, capfd):
    (here / "c.yaml").write_text("out: folder/../a.pt\n")
    (here / "d.yaml").write_text("out: a.pt\n")
    assert call(*words) == (status, False)
    error = capfd.readouterr().err
    assert said in error and error.count("\n") == 1 and error[:-1].isprintable() and len(error) < 500
    assert (here / "a.pt").read_text() == "model"


def test_places_that_can_be_written_reach_the_command(here):
    assert call("measure", "a.pt", "--json", "new/t.json", "--csv", "t.csv", "--plot", "p.svg") == (0, True)
    assert CALLS[0] == (Path("new/t.json"), Path("p.svg"), Path("t.csv"))
    assert call("measure", "folder", "--json", "folder/t.json") == (0, True)
    assert call("train") == (0, True) and call("write", "a.pt") == (0, True)
    assert sorted(file.name for file in here.iterdir()) == ["a.pt", "folder"]


def test_a_dash_is_standard_output_and_a_file_by_its_path(here):
    assert call("measure", "a.pt", "--json", "-")[0] == 0 and CALLS[0][0] == Path("-")
    assert call("measure", "a.pt", "--plot", "./-")[0] == 0 and CALLS[0][1] == here / "-"


def test_every_output_of_every_command_says_so():
    """Options by these names are places to write to, in whatever command."""
    import importlib

    from hardspike import arguments

    seen = set()
    for package in PACKAGES:
        for where, _ in importlib.import_module(f"{package}.__main__").COMMANDS.values():
            module, name = where.split(":")
            for one in arguments._arguments(getattr(importlib.import_module(module), name)):
                key = one.key.rpartition(".")[2]
                assert (one.output is not None) == (key in WRITTEN), (where, one.key)
                seen |= {(key, one.output.kind)} if one.output else set()
    assert seen == {("out", "file"), ("out", "folder"), ("json", "text"), ("csv", "text"), ("csv", "folder"),
                    ("plot", "file"), ("picture", "file"), ("hub", "folder"), ("folder", "folder")}
