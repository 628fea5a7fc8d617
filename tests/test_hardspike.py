"""The command line: arguments, help, errors."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

import hardspike
from hardspike import HardspikeError, UsageError, run
from hardspike.arguments import Call, arguments, docstring


@dataclass
class Layer:
    """A layer.

    Args:
        width: neurons
        beta: leak
    """

    width: int = 4
    beta: float = 0.9

    def __post_init__(self):
        if self.width < 1:
            raise UsageError(f"width {self.width}: must be 1 or more")


@dataclass
class Config:
    """What a run does.

    Args:
        out: folder
        rate: of learning, 90 to 110 % of it
        seed: of all draws
        fast: no checks
        sizes: of the picture
        layer: the one layer
    """

    out: Path = Path("runs")
    rate: float = 0.1
    seed: int | None = None
    fast: bool = False
    sizes: tuple[int, ...] = (8, 4)
    layer: Layer = field(default_factory=lambda: Layer(beta=0.5))


@dataclass(frozen=True)
class Shared:
    """Options of several commands.

    Args:
        name: of the data
        silent: print nothing
    """

    name: str | None = None
    silent: bool = False


CALLS = []


def train(config: Config, resume: bool = False) -> bool:
    """Train a network.

    Twice.

    Args:
        config: the run
        resume: go on
    """
    CALLS.append((config, resume))
    return True


def compare(*models: Path, shared: Shared = Shared(), split: str = "test", dt: float | None = None):
    """Compare models.

    Args:
        models: run folders or files,
            one or more
        shared: what is shared
        split: which part
    """
    CALLS.append((models, shared, split, dt))


def one(model: Path, out: Path | None = None, seed: int = 0, no_check: bool = False):
    """Write one."""
    CALLS.append((model, out, seed, no_check))


COMMANDS = {"train": train, "compare": compare, "one": one}


def call(*words):
    """Status, and what the command was called with."""
    CALLS.clear()
    return run("tests", COMMANDS, [str(word) for word in words]), (CALLS[0] if CALLS else None)


def refused(capfd, *words) -> str:
    """The single line of a usage error."""
    with pytest.raises(SystemExit) as leaving:
        call(*words)
    said = capfd.readouterr().err
    assert leaving.value.code == 2 and said.count("\n") == 1 and not CALLS
    return said


# ------------------------------------------------------------------------------------------------ arguments


def test_signatures_are_arguments():
    assert call("one", "a.pt", "-o", "b.nir", "--seed=-3", "--no-check") == (0, (Path("a.pt"), Path("b.nir"), -3, True))
    assert call("one", "--seed", "-3", "a.pt", "--no_check")[1] == (Path("a.pt"), None, -3, True)
    assert call("one", "--", "-a.pt")[1] == (Path("-a.pt"), None, 0, False)
    status, (models, shared, split, dt) = call("compare", "a", "--split", "train", "b", "--silent", "--dt", "1e-3")
    assert (status, models, shared, split, dt) == (0, (Path("a"), Path("b")), Shared(silent=True), "train", 1e-3)
    assert call("compare", "a", "--name", "null", "--dt", "null")[1][1:] == (Shared(), "test", None)


def test_a_configuration_is_options_over_files_over_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("rate: 1e-3\nseed: 5\nlayer: {width: 7}\nresume: true\n")
    (tmp_path / "b.yaml").write_text("seed: 6\n")
    words = ["--config", tmp_path / "a.yaml", "--config", tmp_path / "b.yaml"]
    config, resume = call("train", "--layer.width", "9", *words, "--fast=yes", "--sizes", "[3, 2]")[1]
    assert resume and config == Config(rate=1e-3, seed=6, fast=True, sizes=(3, 2), layer=Layer(9, 0.5))
    assert call("train", "--sizes", "3, 2")[1][0].sizes == call("train", "--sizes=3,2")[1][0].sizes == (3, 2)
    assert call("train", "--sizes", "3")[1][0].sizes == (3,)
    assert call("train", "--layer", "{width: 2}", "--layer.beta", "0")[1][0].layer == Layer(2, 0.0)
    assert call("train", *words, "--seed", "null")[1][0].seed is None


def test_the_printed_configuration_can_be_read_again(tmp_path, capfd):
    assert call("train", "--print-config", "--rate", "0.25", "--out", "x/y", "--resume") == (0, None)
    (tmp_path / "c.yaml").write_text(capfd.readouterr().out)
    assert call("train", "--config", tmp_path / "c.yaml")[1] == (Config(Path("x/y"), 0.25), True)


@pytest.mark.parametrize(("words", "parts"), [
    (["train", "--rat", "1"], ["--rat", "did you mean '--rate'"]),
    (["train", "--layer-widht=1"], ["did you mean '--layer.width'"]),
    (["train", "--rate", "x"], ["--rate 'x'", "must be a number"]),
    (["train", "--rate", "nan"], ["--rate 'nan'", "finite"]),
    (["train", "--rate=1e999"], ["--rate '1e999'", "finite"]),
    (["train", "--rate", "null"], ["--rate 'null'", "must be a number"]),
    (["train", "--seed", "3.0"], ["--seed '3.0'", "whole number or null"]),
    (["train", "--seed", "1" * 30], ["must be at most 9.22337e+18"]),
    (["train", "--seed", "1" * 5000], ["must be at most 9.22337e+18"]),
    (["train", "--fast"], ["--fast", "expected one argument"]),
    (["train", "--layer", "extras.Layer"], ["--layer 'extras.Layer'", "--layer.KEY"]),
    (["train", "--layer", "{class_path: extras.Layer}"], ["'class_path' is unknown"]),
    (["train", "--layer=/etc/passwd"], ["--layer '/etc/passwd'", "{key: value, ...}"]),
    (["train", "--layer.width", "0"], ["width 0: must be 1 or more"]),
    (["train", "--sizes", "[1, x]"], ["--sizes[1] 'x'"]), (["train", "--sizes", "1,x"], ["--sizes[1] 'x'"]),
    (["train", "--sizes", "1,,2"], ["--sizes[1] ''"]), (["train", "--sizes", "null"], ["must be a list"]),
    (["train", "--sizes", ""], ["--sizes ''", "must be a list"]),
    (["train", "--config", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
    (["train", "x"], ["unrecognized arguments: x"]),
    (["one"], ["required: model"]),
    (["compare", "--split", "x"], ["required: models"]),
    (["one", "a", "--out", "--", "b"], ["--out"]),
    (["trian"], ["'trian' is unknown; did you mean 'train'?"]),
    ([], ["a command is missing; known: train, compare, one"]),
    (["--versoin"], ["--versoin"]),
    (["one", "a\x1b[31m\n", "--x\u202e\udcff"], ["--x\\u202e\\udcff"]),
])
def test_usage_errors_are_one_line_that_names_what_is_off(words, parts, capfd):
    said = refused(capfd, *words)
    assert all(part in said for part in parts) and said[:-1].isprintable()
    assert len(said) < 500


@pytest.mark.parametrize(("text", "parts"), [
    ("seed: null\nrate: null\n", ["rate null", "must be a number"]),
    ("layer: []\n", ["layer []", "width, beta"]),
    ("layer:\n", ["layer null", "width, beta"]),
    ("lyaer:\n", ["'lyaer' is unknown", "did you mean 'layer'"]),
    ("layer.width: 1\n", ["'layer.width' is unknown; keys within a key are written 'a: {b: value}'"]),
    ("layer: {widht: 1}\n", ["'layer.widht' is unknown", "did you mean 'layer.width'"]),
    ("out: 5\n", ["out 5", "must be a path"]),
    ("seed: " + "9" * 30, ["line 1", "9.22337e+18"]),
    ("", ["is empty"]),
    ("- rate\n", ["holds a list"]),
])
def test_errors_of_a_configuration_file_name_file_and_key(text, parts, tmp_path, capfd):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    said = refused(capfd, "train", "--config", file)
    assert all(part in said for part in [str(file), *parts])


def test_what_the_dataclass_refuses_names_the_file(tmp_path, capfd):
    (tmp_path / "c.yaml").write_text("layer: {width: 0}\n")
    assert str(tmp_path / "c.yaml") in refused(capfd, "train", "--config", tmp_path / "c.yaml")
    assert call("train", "--config", tmp_path / "c.yaml", "--layer.width", "1")[0] == 0  # set right by an option


def test_help_shows_docstrings_types_and_defaults(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert call("train", "--help") == (0, None)
    said = capfd.readouterr().out
    for part in ("Train a network.", "Twice.", "--layer.beta BETA", "leak (default: 0.5)", "90 to 110 % of it",
                 "the one layer:", "--out OUT (-o)", "--fast true|false", "--resume", "go on", "--config FILE"):
        assert part in said
    assert call("compare", "-h")[0] == 0
    said = capfd.readouterr().out
    assert "usage: python -m tests compare MODELS ... [options]" in said
    assert "run folders or files, one or more" in said and "--silent  " in said and "--config" not in said
    assert run("tests", COMMANDS, ["--help"]) == 0 and "compare  Compare models." in capfd.readouterr().out
    assert run("tests", COMMANDS, ["--version"]) == 0
    assert capfd.readouterr().out == f"hardspike {hardspike.__version__}\n"


def test_docstrings_are_taken_apart():
    """What stands behind the first section is no description, and only `Args:` has arguments."""
    def function():
        """First.

        Second.

        Args:
            *names: of files,
                many
            x (int): a number: any

        Raises:
            UsageError: never.
        """

    assert docstring(function) == ("First.", "First.\n\nSecond.", {"names": "of files, many", "x": "a number: any"})


def test_annotations_may_be_text_and_the_result_of_a_type_that_is_not_imported():
    space = {"Path": Path}
    exec("def late(model: 'Path', bits: 'int | None' = None) -> 'Nowhere': ...", space)
    assert arguments(space["late"], "x", ["a", "--bits", "4"]) == Call([], {"model": Path("a"), "bits": 4})


# ------------------------------------------------------------------------------------------- exit statuses


def failing(error):
    def command():
        raise error
    return {"fail": command}


@pytest.mark.parametrize(("error", "status", "parts"), [
    (UsageError("bits 9: must be at most 8"), 2, ["bits 9: must be at most 8"]),
    (HardspikeError("layer a\nb\x1b]0;x\x07: broken"), 1, ["layer a\\nb\\x1b]0;x\\x07: broken"]),
    (HardspikeError("x" * 1000 + " END"), 1, ["xxx ... xxx", "END"]),
    (KeyError("history"), 1, ["unexpected KeyError: 'history'", "please report it", "HARDSPIKE_TRACE=1"]),
    (RuntimeError("two\nlines\n" + "y" * 5000), 1, ["unexpected RuntimeError: two lines", "please report it"]),
    (AssertionError(), 1, ["unexpected AssertionError;"]),
    (RecursionError("maximum recursion depth exceeded"), 1, ["unexpected RecursionError"]),
    (MemoryError(), 1, ["out of memory; take fewer"]),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), 1, ["out of memory (Default", "take fewer"]),
    (PermissionError(13, "Permission denied", "/some/file"), 1, ["/some/file: Permission denied"]),
    (KeyboardInterrupt(), 130, ["interrupted"]),
])
def test_whatever_happens_is_one_line_and_a_status(error, status, parts, capfd):
    assert run("tests", failing(error), ["fail"]) == status
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and len(said) < 500 and said[:-1].isprintable() and all(part in said for part in parts)


def test_the_trace_comes_when_it_is_asked_for(capfd, monkeypatch):
    monkeypatch.setenv("HARDSPIKE_TRACE", "1")
    assert run("tests", failing(KeyError("history")), ["fail"]) == 1
    said = capfd.readouterr().err
    assert said.startswith("Traceback") and "unexpected KeyError" in said.splitlines()[-1]


def test_a_check_that_found_something_is_1():
    assert run("tests", {"check": lambda: False}, ["check"]) == 1
