"""Whole commands on models, spikes, tables and runs that are odd: what a reader lets through, a command has to bear."""

import contextlib
import io
import json
import os
import random
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import nir
import numpy as np
import torch

from tests.fuzz import kinds_graphs, kinds_state, kinds_text, mutate, seeds

EVAL = ("--input", "SPIKES", "--json", "out.json")
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("targets", "check", "MODEL", "--json", "out.json"),
    ("targets", "map", "MODEL", "--picture", "out.svg", "--json", "out.json"),
    ("targets", "run", "MODEL", "--input", "SPIKES", "--out", "out.npz", "--json", "out.json"),
    ("targets", "run", "MODEL", "--input", "SPIKES", "--target", "loihi2"),
    ("targets", "run", "MODEL", "--stream", "in.jsonl"),
    ("targets", "bench", "MODEL", "--input", "SPIKES", "--runs", "2", "--json", "out.json"),
    ("export", "nir", "MODEL", "--input", "SPIKES", "--out", "out.nir"),
    ("export", "quantise", "MODEL", "--input", "SPIKES", "--scale", "max_abs", "--out", "out.nir"),
    ("export", "onnx", "MODEL", "--input", "SPIKES", "--out", "out.onnx"),
    ("export", "lava", "MODEL", "--input", "SPIKES", "--scale", "max_abs", "--no_check", "--out", "out.net"),
    ("export", "c", "MODEL", "--input", "SPIKES", "--scale", "max_abs", "--no_check", "--out", "out.c"),
    ("eval", "accuracy", "MODEL", *EVAL, "--csv", "out.csv"),
    ("eval", "calibrate", "MODEL", "--kind", "global", "--out", "out", *EVAL),
    ("eval", "energy", "MODEL", *EVAL, "--csv", "out.csv", "--prices", "in.yaml"),
    ("eval", "features", "MODEL", *EVAL, "--perplexity", "1", "--out", "out.svg"),
    ("eval", "gradients", "MODEL", *EVAL, "--out", "out.svg"),
    ("eval", "landscape", "MODEL", *EVAL, "--points", "3", "--eigenvalues", "1", "--out", "out.svg"),
    ("eval", "operations", "MODEL", *EVAL, "--csv", "out.csv"),
    ("eval", "parity", "MODEL", *EVAL, "--targets", "reference,loihi2,onnxruntime", "--scale", "max_abs"),
    ("eval", "robustness", "MODEL", *EVAL, "--corruptions", "event_drop,weight_noise", "--severities", "0,0.5",
     "--csv", "out.csv", "--plot", "out.svg"),
    ("eval", "sharpness", "MODEL", *EVAL),
    ("eval", "report", "MODEL", "--input", "SPIKES", "--out", "out.html", "--bits", "8", "--severities", "0,0.5",
     "--targets", "reference,loihi2", "--csv", "tables"),
)


def renamed(graph: nir.NIRGraph, name: Callable[[str], str]) -> nir.NIRGraph:
    """The same graph with other names of its nodes; Input and Output keep theirs."""
    names = {old: old if old in ("input", "output") else name(old) for old in graph.nodes}
    nodes = {names[old]: node for old, node in graph.nodes.items()}
    return nir.NIRGraph(nodes, [(names[a], names[b]) for a, b in graph.edges], metadata=graph.metadata,
                        type_check=False)


def _graph(r: random.Random, folder: Path) -> Path:
    """A valid graph whose names and metadata are text that nobody should give."""
    from targets import graph as graphs

    path = folder / "model.nir"
    path.write_bytes(r.choice(seeds.files(folder)[".nir"]))
    graph = graphs.read(path)
    used: set[str] = set()

    def other(old: str) -> str:
        new = mutate.name(r).replace("\0", "") if r.random() < 0.5 else old
        used.add(new := new if new not in used | set(graph.nodes) else old)
        return new

    made = renamed(graph, other)
    for key in ("hardspike", "readout", "calibration", "author", mutate.name(r).replace("\0", "") or "x"):
        if r.random() < 0.3:
            made.metadata[key] = r.choice((mutate.name(r).replace("\0", ""), "x" * 70_000, 5, 0.5))
    if r.random() < 0.3:
        values = {"name": r.choice(("digits", mutate.name(r))), "path": r.choice((None, mutate.name(r), "/etc")),
                  r.choice(("steps", "size", "folds")): r.choice((4, 0, "x", 10**30))}
        made.metadata["data"] = json.dumps(values)
    with contextlib.suppress(Exception):  # a name that no file holds: then the file stays as it was
        nir.write(path, made)
    return path


def _checkpoint(r: random.Random, folder: Path) -> Path:
    """A valid checkpoint whose own words are hostile, or numbers far out."""
    path = folder / "model.pt"
    content = torch.load(io.BytesIO(r.choice(seeds.files(folder)[".pt"])), weights_only=True)
    words, row = mutate.name(r).replace("\0", ""), content["history"][0]
    for change in r.sample((
        lambda: content.update(calibration={"kind": words, "values": [1.0]}),
        lambda: row.update({words: r.choice((1.0, words))}),
        lambda: row.update(layers={words: {"fisher": 1.0, "sgv": r.choice((1.0, float("nan"), words, [1]))}}),
        lambda: row.update(layers={"lif1": {"widths": r.choice(([1.0, 2.0], [], [1], "x", 1.0)), "tgc": [1.0, 0.5]}}),
        lambda: content["diagnostics"].update({"theory_aligned": r.choice((True, words)), "why_not": words}),
        lambda: content["config"]["data"].update(path=words),
        lambda: content["config"]["data"].update(steps=r.choice((1, 4, 1000))),
        lambda: content["config"].update(out=words),
        lambda: content.update(epoch=r.choice((0, 5, 2**31))),
        lambda: content.update(slope=r.choice((1e-30, 1e30, 25.0))),
        lambda: row.update(epoch=r.choice((0, 1.5, -1, 1e300))),
        lambda: [weights.mul_(r.choice((0, 1e-30, 1e30))) for weights in content["network"].values()
                 if weights.is_floating_point()],
    ), r.choice((1, 2, 3))):
        change()
    torch.save(content, path)
    return path


def make_command(r: random.Random, folder: Path) -> Path:
    """A folder with a model, spikes, a price table, a stream, and the words of a command."""
    import matplotlib.font_manager  # noqa: F401  which looks for fonts once, by starting a program

    from tests.fuzz import kinds

    place = folder / "command"
    place.mkdir()
    made = r.choice((_graph, _graph, _graph, _checkpoint, _checkpoint, kinds_graphs.KINDS["nir"][0],
                     kinds.make_checkpoint))(r, folder)
    made.rename(model := place / f"model{made.suffix}")
    if r.random() < 0.2:
        kinds.make_spikes(r, folder).rename(place / "in.npz")
    else:
        shape = seeds.SHAPE
        with contextlib.suppress(Exception):  # of the graph, where it says one
            from targets import graph as graphs

            found = graphs.plan(graphs.read(model))
            shape = found.output_shape[found.input]
        count = min(20_000, int(np.prod(shape)))
        spikes = np.resize(np.array([[r.randrange(2) for _ in range(count)] for _ in range(8)], "u1"),
                           (seeds.STEPS, 2, *shape)) if int(np.prod(shape)) <= 20_000 else np.zeros((1, 1))
        (place / "in.npz").write_bytes(seeds.arrays(spikes=spikes, labels=np.array([0, 1])[: spikes.shape[1]]))
    kinds_text.KINDS["prices"][0](r, folder).rename(place / "in.yaml")
    kinds_state.make_stream(r, folder).rename(place / "in.jsonl")
    suited = [words for words in COMMANDS if (words[0] != "targets" or model.suffix == ".nir")]
    rare = [0.1 if words[1] == "report" else 1.0 for words in suited]  # it takes seconds
    (chosen,) = r.choices(suited, rare)
    words = [{"MODEL": model.name, "SPIKES": "in.npz"}.get(word, word) for word in chosen]
    if words[1] == "calibrate":
        words[words.index("out")] += model.suffix
    if words[1] == "energy" and r.random() < 0.5:
        words[words.index("in.yaml")] = "loihi2"
    (place / "words.json").write_text(json.dumps(words))
    return place


def make_run(r: random.Random, folder: Path) -> Path:
    """The folder of a run that was interrupted after its first epoch, its last.pt changed."""
    place = folder / "command"
    place.mkdir()
    for name, data in _run(folder).items():
        (place / name).write_bytes(data)
    content = torch.load(place / "last.pt", weights_only=True)
    tree = content if r.random() < 0.3 else content["training"]
    if r.random() < 0.3:
        optimizer = content["training"]["optimizer"]
        group, state = optimizer["param_groups"][0], optimizer["state"]
        r.choice((
            lambda: group.update({r.choice(list(group)): r.choice((None, "x", -1, float("nan"), [], 10**30, 1e300))}),
            lambda: state.update({r.choice([*state, 99]): r.choice(({}, None, {"step": 1}))}),
            lambda: state.clear(),
            lambda: group.update(params=r.choice(([], [0], [99], None, "abc", [[0]]))),
            lambda: optimizer.update(param_groups=[]),
        ))()
    else:
        from tests.fuzz.kinds import _leaf

        mutate.mutated_tree(r, tree, lambda: _leaf(r, folder))
    torch.save(content, place / "last.pt")
    if r.random() < 0.1:
        (place / "config.yaml").write_bytes(mutate.mutated(r, (place / "config.yaml").read_bytes()))
    (place / "words.json").write_text(json.dumps(["trainer", "fit", "--resume", "--out", ""]))
    return place


_RUN: dict[str, bytes] = {}


def _run(folder: Path) -> dict[str, bytes]:
    """Files of a run after one of two epochs, made once a process."""
    if not _RUN:
        from trainer.config import FitConfig, from_dict
        from trainer.fit import fit

        options = {"epochs": 1, "method": "hard", "device": "cpu", "data": {"steps": 2, "size": 8},
                   "network": {"layers": "4c5s4"}, "batch_size": 512, "out": str(folder / "made")}
        config: FitConfig = from_dict(options, "a run")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            fit(config)
        for name in ("best.pt", "last.pt", "config.yaml"):
            _RUN[name] = (folder / "made" / name).read_bytes()
        content = torch.load(io.BytesIO(_RUN["last.pt"]), weights_only=True)
        content["config"]["epochs"] = 2
        made = io.BytesIO()
        torch.save(content, made)
        _RUN["last.pt"] = made.getvalue()
        _RUN["config.yaml"] = _RUN["config.yaml"].replace(b"epochs: 1", b"epochs: 2")
    return _RUN


def use_command(path: Path) -> None:
    """The command ends with status 0, or 1 or 2 and one line; what it prints is printable."""
    from hardspike import HardspikeError, command_line, run

    words = [str(path / word) if word == "" or (path / word).exists() or word.startswith("out") else word
             for word in json.loads((path / "words.json").read_text())]
    package, out, err = words.pop(0), io.StringIO(), io.StringIO()
    before = os.getcwd()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), \
                mock.patch.object(command_line, "_failed", _loud(command_line._failed)):
            status: Any = run(package, import_module(f"{package}.__main__").COMMANDS, words)
    except SystemExit as end:
        status = end.code
    finally:
        os.chdir(before)
    for line in (out.getvalue() + err.getvalue()).replace("\r", "\n").splitlines():
        assert line.isprintable(), f"prints {line!r}"
    said = [line for line in err.getvalue().splitlines() if ": error: " in line]
    assert status == 0 or (status == 1 and words[0] == "check") or (status in (1, 2) and len(said) == 1), \
        f"status {status}, {len(said)} lines: {err.getvalue()[-300:]}"
    if said:
        raise HardspikeError(said[0].replace(str(path), "FOLDER"))


def _loud(failed: Callable) -> Callable:
    """What the last net would catch is what the campaign looks for."""
    def call(name: str, error: BaseException, interrupts: Any) -> int:
        from hardspike import HardspikeError
        from hardspike.command_line import _explained

        if not isinstance(error, HardspikeError) and not _explained(error):
            raise error
        return failed(name, error, interrupts)
    return call


KINDS: dict[str, tuple[Callable[[random.Random, Path], Path], Callable[[Path], Any]]] = {
    "command": (make_command, use_command),
    "resume": (make_run, use_command),
}
"""Name -> (make, use); see `kinds`."""
