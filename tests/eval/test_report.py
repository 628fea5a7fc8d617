"""`python -m eval report`: one page that holds together, verdicts that follow from numbers, and what is refused."""

import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nir
import numpy as np
import pytest

from eval.__main__ import COMMANDS
from eval.accuracy import measure as accuracies
from eval.commands.report import labels as labels_of
from eval.commands.report import report as command
from eval.mode import Mode
from eval.options import Effort
from eval.report import runs
from export.model import frozen
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError, cache_folder, run
from targets.graph import write
from targets.table import load_targets
from targets.target import Target
from tests.eval.opened import subjects
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import DataConfig, Split
from trainer.fit import fit
from trainer.networks import NetworkConfig, build

QUICK = {"samples": 24, "corrupted": 8, "severities": "0,0.1", "bits": "8", "targets": "reference,loihi2"}
EFFORT = ("targets", "bits", "samples", "corrupted", "severities")
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a browser would see: open elements, ids, references, headings of sections and their text."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.references, self.sections, self.unclosed = [], [], [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if "id" in values:
            self.ids.append(values["id"])
            if tag == "section":
                self.sections[values["id"]] = ""
        self.references += [value for key, value in attributes if key in ("src", "href", "xlink:href", "action")]
        self.references += [match for _, value in attributes for match in re.findall(r"url\((.*?)\)", value or "")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if self.open[-1] != tag:
            self.unclosed.append(tag)
        else:
            self.open.pop()

    def handle_data(self, data):
        if self.sections and "section" in self.open:
            self.sections[list(self.sections)[-1]] += data.strip()


def report(*models, out=None, compare=None, csv=None, **options):
    effort = Effort(**{key: options.pop(key) for key in EFFORT if key in options})
    return command(*models, out=out, compare=compare, effort=effort, recordings=Recordings(**options), csv=csv)


def check(text: str) -> Page:
    """A page that is well-formed, refers to nothing outside, and whose references inside all lead somewhere."""
    page = Page(text)
    assert not page.unclosed and not page.open
    assert len(page.ids) == len(set(page.ids))
    for reference in page.references:
        assert reference.startswith("data:image/png;base64,") or reference.removeprefix("#") in page.ids, reference
    assert not re.search(r"@import|<script|https?:", re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL))
    assert all(page.sections.values())
    return page


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    config = FitConfig(out=folder, epochs=2, batch_size=64, method="surrogate", data=DataConfig(steps=4),
                       network=NetworkConfig(layers="6c5s3-24", batch_norm=True, reset="zero"))
    fit(config)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARDSPIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_a_run_gives_a_page_of_its_own_and_its_numbers(trained, tmp_path):
    found = report(trained, csv=tmp_path / "csv", **QUICK)
    page = check((trained / "report.html").read_text())
    assert set(page.sections) == {"verdict", "accuracy", "layers", "membranes", "sample", "confusion", "corruptions",
                                  "operations", "neurobench", "energy", "cores", "timing", "parity", "training",
                                  "reproduce", "missing"}
    assert json.loads((trained / "report.json").read_text()) == json.loads(json.dumps(found))
    model, = found["models"]
    assert [row["mode"] for row in model["accuracy"]] == [
        "surrogate", "hard", "hard, calibrated (global)", "hard, calibrated (bias)", "reference", "loihi2, 8 bits"]
    assert {file.stem for file in (tmp_path / "csv").iterdir()} == {
        "accuracy", "membranes", "corruptions", "operations", "energy", "cores", "training", "parity", "confusion",
        "layers", "timing", "neurobench"}
    assert sum(map(sum, model["confusion"]["matrix"])) == 24 and model["confusion"]["mode"] == "loihi2, 8 bits"
    facts = "24 recordings of 4 steps (counts and energy on 64; corruptions, layers disturbed on 8)"
    assert facts in (trained / "report.html").read_text()
    assert "the target loihi2 computes the same integers" in page.sections["missing"]
    tables = {}
    for row in model["energy"]["rows"]:
        tables.setdefault(row["run"], set()).add(row["prices"])
    assert tables == {
        "SNN, hard": {"synops_45nm", "horowitz45nm", "horowitz45nm_sram"},
        "ANN, one pass": {"horowitz45nm", "horowitz45nm_sram"},
        "SNN, loihi2, 8 bits": {"synops_45nm", "horowitz45nm_int8", "horowitz45nm_int8_sram"},
        "ANN, one pass, 8 bits": {"horowitz45nm_int8", "horowitz45nm_int8_sram"}}
    assert "horowitz45nm_int8:" in page.sections["energy"]


def test_a_chip_with_published_prices_has_its_energy_by_them(trained, tmp_path):
    model, = report(trained, out=tmp_path / "one.html", **{**QUICK, "targets": "reference,loihi1"})["models"]
    page = check((tmp_path / "one.html").read_text())
    own, = (row for row in model["energy"]["rows"] if row["prices"] == "loihi1" and row["term"] == "total")
    assert own["run"] == "SNN, loihi1, 8 bits" and own["evidence"] == "simulated" and own["energy nJ"] > 0
    said = dict(model["verdict"]["answers"])["At what cost?"]
    assert f"{own['energy nJ'] / 1000:.3g} µJ a recording (mean of 64) by the published prices of Loihi 1" in said
    assert "the target loihi1 computes the same integers" in page.sections["missing"]


def test_a_damaged_graph_in_the_cache_is_made_anew(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))
    found = report(trained, out=tmp_path / "a.html", **QUICK)
    graph, = (cache_folder() / "eval").glob("*.nir")
    graph.write_bytes(graph.read_bytes()[:-100])
    again = report(trained, out=tmp_path / "a.html", **QUICK)
    assert again == found and f"{graph}: damaged; made anew" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("change", [lambda split: Split(split.frames.flip(0), split.labels, split.ids),
                                    lambda split: Split(split.frames, split.labels.flip(0), split.ids)])
def test_other_training_or_validation_recordings_are_chosen_on_anew(trained, monkeypatch, part, change):
    asked = []

    def choose(subject, kind):
        asked.append(kind)
        raise HardspikeError("not now")

    subject, = subjects(trained, samples=8)
    targets = load_targets("reference")
    monkeypatch.setattr(runs, "choose", choose)
    other = replace(subject, data=replace(subject.data, **{part: change(getattr(subject.data, part))}))
    runs.all_runs(subject, targets, [8])
    asked.clear()
    runs.all_runs(subject, targets, [8])
    assert not asked
    runs.all_runs(other, targets, [8])
    assert asked == [*runs.CALIBRATIONS]


def test_numbers_are_those_of_the_other_commands(trained):
    """Membranes, parity and the hard rate against a run of the network by hand."""
    model, = report(trained, **{**QUICK, "samples": 0})["models"]
    rows = accuracies(subjects(trained))
    for mine, theirs in zip(model["accuracy"][:2], rows, strict=True):
        assert [mine[key] for key in ("accuracy %", "low %", "high %")] == [
            100 * share for share in (theirs.accuracy, theirs.low, theirs.high)]
        assert mine["spikes"] == pytest.approx(sum(theirs.spikes.values()))
    assert model["accuracy"][1]["change"] == pytest.approx(-100 * rows[1].gap)
    for layer in model["membranes"]:
        above = sum(layer["histogram"][len(layer["histogram"]) // 2:])
        assert layer["beyond %"] > 1 or above == pytest.approx(layer["rate"], abs=1e-6)
        assert 0 <= layer["|phi-H|"] <= 0.5 and layer["phi at rest"] == pytest.approx(
            model["theory"]["phi(-theta)"])


def test_two_models_stand_side_by_side(trained, tmp_path):
    graph = frozen(checkpoint.load(trained / "best.pt"))
    write(graph, tmp_path / "net.nir")
    found = report(trained, compare=tmp_path / "net.nir", out=tmp_path / "pair.html", **QUICK)
    page = check((tmp_path / "pair.html").read_text())
    assert [model["label"] for model in found["models"]] == ["net.nir", "run"]
    assert "net.nir" in page.sections["accuracy"] and "Training curves" in page.sections["missing"]
    table = page.sections["accuracy"]
    assert "run against net.nir on the same recordings" in table and "loihi2, 8 bits" in table
    assert "On loihi2, 8 bits both are as good: net.nir" in page.sections["verdict"]


def test_a_fault_that_a_network_cannot_have_is_named_under_the_curves(trained, tmp_path):
    """Spikes inside a loop cannot get lost; beside a network whose spikes can, its curves are drawn all the same."""
    draw = np.random.default_rng(0)
    weights = {"in": (12, 2 * 34 * 34), "loop": (12, 12), "out": (10, 12)}
    nodes = {name: nir.Linear(draw.normal(0, 0.3, shape).astype(np.float32)) for name, shape in weights.items()}
    nodes |= {"input": nir.Input(np.array([2, 34, 34])), "output": nir.Output(np.array([10])),
              "flat": nir.Flatten({"input": np.array([2, 34, 34])}, 0, -1)}
    nodes |= {name: nir.LIF(*(np.full(size, value, np.float32) for value in (1e-3, 10, 0, 1)))
              for name, size in (("lif", 12), ("last", 10))}
    edges = [("input", "flat"), ("flat", "in"), ("in", "lif"), ("lif", "loop"), ("loop", "lif"), ("lif", "out"),
             ("out", "last"), ("last", "output")]
    nir.write(tmp_path / "loop.nir", nir.NIRGraph(nodes, edges))
    options = {**QUICK, "targets": "reference", "severities": "0,0.12345678", "name": "digits"}
    found = report(trained, compare=tmp_path / "loop.nir", out=tmp_path / "pair.html", **options)
    text = check((tmp_path / "pair.html").read_text()).sections["corruptions"]
    reason = "reference: layer 'lif' is recurrent; spikes are only lost between layers"
    assert f"Without spike deletion of {reason}" in text and f"Without stuck neurons of {reason}" in text
    assert "Spike deletion" in text  # the panel of the network that can
    loop, run = (model["corruptions"] for model in found["models"])
    assert {one["corruption"] for one in loop["left_out"]} == {"spike_deletion", "stuck_neurons"}
    assert not run["left_out"] and "0.12345678" in run["rows"][0]


def test_a_foreign_graph_needs_its_data_named(tmp_path):
    weight = np.random.default_rng(0).normal(0, 0.3, (10, 2 * 34 * 34)).astype(np.float32)
    graph = nir.NIRGraph.from_list(nir.Input(np.array([2, 34, 34])), nir.Flatten(
        {"input": np.array([2, 34, 34])}, 0, -1), nir.Linear(weight), nir.LIF(
        *(np.full(10, value, np.float32) for value in (1e-3, 10, 0, 1))), nir.Output(np.array([10])))
    nir.write(tmp_path / "foreign.nir", graph)
    with pytest.raises(UsageError, match="does not say what data it is for; give --name"):
        report(tmp_path / "foreign.nir", **QUICK)
    model, = report(tmp_path / "foreign.nir", name="digits", **QUICK)["models"]
    check((tmp_path / "foreign.nir.report.html").read_text())
    assert [row["mode"] for row in model["accuracy"]] == ["reference", "loihi2, 8 bits"]
    assert model["verdict"]["state"] == "not ready" and "guessing" in model["verdict"]["headline"]


def untrained(run, layers, path):
    """A checkpoint like that of `run`, of another network with its initial weights."""
    stored = checkpoint.load(run / "best.pt")
    stored.config.network = NetworkConfig(layers=layers, reset="zero")
    stored.network = build(stored.config.network, stored.shape, stored.classes).eval()
    checkpoint.save(stored, path)


def test_a_network_that_nir_cannot_hold_says_so_and_has_a_page(trained, tmp_path):
    untrained(trained, "mp2-4c5s2-16", tmp_path / "pooled.pt")
    model, = report(tmp_path / "pooled.pt", **QUICK)["models"]
    check((tmp_path / "pooled.pt.report.html").read_text())
    assert model["verdict"]["state"] == "not ready" and "Not ready for a chip" in model["verdict"]["headline"]
    line, = (line for line in model["missing"] if "takes the largest of currents" in line)
    assert line.startswith("Targets, ") and "Cores" in line and "Layers" in line  # one reason, told once
    page = check((tmp_path / "pooled.pt.report.html").read_text())
    assert "parity" not in page.sections and str(tmp_path) not in page.sections["verdict"]


def test_pooled_spikes_are_cells_of_the_graph_alone(trained, tmp_path):
    """Max-pooling of spikes is a layer that fires in the graph, and none in the network: the others are compared."""
    untrained(trained, "4c5s2-mp2-16", tmp_path / "pooled.pt")
    model, = report(tmp_path / "pooled.pt", **QUICK)["models"]
    hard, floats = ({run["mode"]: run for run in model["runs"]}[mode] for mode in ("hard", "reference"))
    assert "pool2" in floats["spikes"] and "pool2" not in hard["spikes"] and floats["differs"]["hard"] == 0
    chip = next(run for run in model["runs"] if run["mode"] == "loihi2, 8 bits")
    both = [run["spikes"] for run in (floats, chip)]
    assert any(spikes["pool2"] for spikes in both) and chip["apart"] and set(chip["apart"]) == {"reference"}
    assert floats["differs"]["loihi2, 8 bits"] - floats["apart"]["loihi2, 8 bits"] == hard["differs"]["loihi2, 8 bits"]
    spikes = {row["mode"]: row["spikes"] for row in model["accuracy"]}
    assert spikes["loihi2, 8 bits"] == pytest.approx(sum(chip["spikes"].values()) - chip["spikes"]["pool2"])
    page = check((tmp_path / "pooled.pt.report.html").read_text())
    assert "without pool2, which are cells of the graph" in page.sections["accuracy"]
    assert "behind +: in pool2, which only some have" in page.sections["parity"]


def test_cores_are_those_of_the_integer_graph(trained, tmp_path):
    untrained(trained, "4c5s4-4r-ap2-16", tmp_path / "residual.pt")
    model, = report(tmp_path / "residual.pt", **QUICK)["models"]
    assert model["cores"]["cores"] >= 1 and not any("Cores" in line for line in model["missing"])


REFERENCE, ONNX = Mode("reference"), Mode("onnxruntime")


def test_one_float_spike_off_is_explained_by_a_run(trained, monkeypatch):
    """A run of onnxruntime in which a spike is flipped: far from its threshold, which rounding does not explain."""
    plain = Target.run

    def wrong(self, graph, frames, *rest, **options):
        recording = plain(self, graph, frames, *rest, **options)
        if self.name == "onnxruntime" and not next(iter(recording.spikes.values()))[0, 0].all():
            recording.spikes["lif1"][0, 0, 0, 0, 0] ^= 1
        return recording

    subject, = subjects(trained, samples=4)
    monkeypatch.setattr(Target, "run", wrong)
    found, _ = runs.all_runs(subject, load_targets("reference,onnxruntime"), [8])
    onnx, = (one for one in found if one.mode == ONNX)
    assert onnx.beyond == 1 and onnx.differs[[one.mode for one in found].index(REFERENCE)] == 1
    assert [one.beyond for one in found if one is not onnx] == [None] * (len(found) - 1)


@pytest.mark.parametrize(("words", "message"), [
    (["nothing"], "nothing: no such file or folder"), (["a.pt", "b.pt", "c.pt"], "a report is about one, or two"),
    (["x.pt", "--targets", "loihi3"], "did you mean 'loihi"), (["x.pt", "--bits", "9"], "from 2 to 8"),
    (["x.pt", "--samples", "-1"], "must be 0")])
def test_errors_are_one_line(words, message, capfd):
    assert run("eval", COMMANDS, ["report", *words]) in (1, 2)
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(("models", "labels"), [
    (["runs/sast"], ["sast"]), (["runs/sast/best.pt"], ["sast"]), (["runs/sast/last.pt"], ["sast/last.pt"]),
    (["net.nir"], ["net.nir"]), (["study/plain/0", "study/sast/0"], ["plain/0", "sast/0"]),
    (["study/plain/0"], ["plain/0"]), (["../0"], ["a/0"]), (["."], ["b"]), (["x/run", "y/run"], ["x/run", "y/run"])])
def test_titles_say_which_run_it_is(models, labels, tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    assert labels_of(tuple(map(Path, models))) == labels


def test_two_models_of_other_data_are_refused_with_what_differs(trained, tmp_path):
    stored = checkpoint.load(trained / "best.pt")
    stored.config.data.steps = 7
    checkpoint.save(stored, tmp_path / "long.pt")
    for options in ({}, {"name": "digits"}):
        with pytest.raises(UsageError, match=r"long\.pt: was made for other data \(steps 7 instead of 4\)"):
            report(trained, tmp_path / "long.pt", **options, **QUICK)


def test_a_folder_without_a_run_and_a_wrong_ending_are_refused(trained, tmp_path):
    with pytest.raises(HardspikeError, match=r"holds no best\.pt"):
        report(tmp_path, **QUICK)
    with pytest.raises(UsageError, match=r"name it x\.html"):
        report(trained, out=tmp_path / "x.pdf", **QUICK)


def test_names_of_layers_are_text_on_the_page(trained, tmp_path):
    """A graph whose layers are called as markup, mathematics and patterns are."""
    names = {"lif": '"><img src=x onerror=alert(1)>', "fc": r"$\frac$", "last": r"a\1b"}
    draw = np.random.default_rng(0)
    nodes = {"input": nir.Input(np.array([2, 34, 34])), "output": nir.Output(np.array([10])),
             "flat": nir.Flatten({"input": np.array([2, 34, 34])}, 0, -1),
             names["fc"]: nir.Linear(draw.normal(0, 0.3, (12, 2 * 34 * 34)).astype(np.float32)),
             "out": nir.Linear(draw.normal(0, 0.3, (10, 12)).astype(np.float32))}
    nodes |= {name: nir.LIF(*(np.full(size, value, np.float32) for value in (1e-3, 10, 0, 1)))
              for name, size in ((names["lif"], 12), (names["last"], 10))}
    order = ["input", "flat", names["fc"], names["lif"], "out", names["last"], "output"]
    nir.write(tmp_path / "odd.nir", nir.NIRGraph(nodes, list(itertools.pairwise(order))))
    report(tmp_path / "odd.nir", name="digits", steps=4, **QUICK)
    text = (tmp_path / "odd.nir.report.html").read_text()
    page = check(text)
    assert "<img" not in text and all(name in page.sections["membranes"] for name in (names["lif"], names["last"]))


def test_a_file_of_spikes_has_a_report(tmp_path):
    """A graph of no pictures on recordings of a file: no events to draw, and no pixels to fail."""
    nodes = {"input": nir.Input(np.array([4])), "fc": nir.Linear(np.eye(4, dtype=np.float32)),
             "lif": nir.LIF(*(np.full(4, value, np.float32) for value in (1e-2, 10, 0, 0.5))),
             "output": nir.Output(np.array([4]))}
    nir.write(tmp_path / "flat.nir", nir.NIRGraph(nodes, [("input", "fc"), ("fc", "lif"), ("lif", "output")]))
    labels = np.arange(24) % 4
    np.savez(tmp_path / "x.npz", spikes=np.eye(4, dtype=np.uint8)[labels][None].repeat(6, 0), labels=labels)
    model, = report(tmp_path / "flat.nir", input=tmp_path / "x.npz", dt=1e-3, **QUICK)["models"]
    page = check((tmp_path / "flat.nir.report.html").read_text())
    assert model["accuracy"][0]["accuracy %"] == 100 and "corruptions" in page.sections and "sample" in page.sections
