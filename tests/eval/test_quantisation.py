"""`python -m eval quantisation` and `pruning`: what fewer bits and fewer weights cost and save."""

import json
from dataclasses import replace

import numpy as np
import pytest

from eval.commands.calibrate import calibrate
from eval.commands.energy import energy
from eval.commands.operations import operations
from eval.commands.pruning import Tuning, pruning
from eval.commands.quantisation import Further, quantisation
from eval.gradients import measure as gradients
from eval.options import Sample, Tables
from eval.quantisation import means
from export.commands import quantise
from export.freeze.freeze import freeze
from export.model import Model
from export.options import Output, Quantisation
from export.recordings import Recordings
from hardspike import UsageError
from targets.chips import chip, limits_of
from targets.graph import write
from targets.loihi.mapping import map_graph
from tests.networks import SHAPE, busy_network, frames
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.fit import fit
from trainer.networks import NetworkConfig
from trainer.quantise import QuantiseConfig


def test_table_of_bits_and_scales(tmp_path):
    network = NetworkConfig(layers="8c5s3-32", batch_norm=True, reset="zero")
    config = FitConfig(out=tmp_path / "run", epochs=3, batch_size=64, method="hard", average=0.0,
                       data=DataConfig(steps=5), network=network)
    model = fit(config).best
    rows = quantisation(model, model, bits="8,2", train_samples=24, sample=Sample("validation"),
                        tables=Tables(csv=tmp_path / "q.csv"))
    assert len(rows) == 2 * 4 and len((tmp_path / "q.csv").read_text().splitlines()) == 13
    found = {(row.bits, row.scale): row for row in rows[:4]}
    assert found[8, "searched"].loss < 0.08 and found[8, "max_abs"].changed < 0.2
    assert found[2, "max_abs"].changed > found[2, "searched"].changed > found[8, "searched"].changed > 0
    for row in means(rows):
        assert row.model is None and row.loss == pytest.approx(found[row.bits, row.scale].loss)
    assert not any(row.silent for row in rows)
    with pytest.raises(UsageError, match="whole numbers"):
        quantisation(model, bits="eight")


def test_a_layer_that_never_fired_is_named(tmp_path, capsys):
    """Nothing of it changed, which says nothing."""
    network = busy_network(layers="6c5s2-32", reset="zero", readout="spikes")
    graph = freeze(dict(network.layers), SHAPE)
    graph.nodes["lif2"].v_threshold = graph.nodes["lif2"].v_threshold * 50
    write(graph, tmp_path / "a.nir")
    np.savez(tmp_path / "x.npz", spikes=frames(6, 4).numpy().astype(np.uint8), labels=np.arange(4))
    rows = quantisation(tmp_path / "a.nir", bits="8", recordings=Recordings(input=tmp_path / "x.npz"),
                        tables=Tables(json=tmp_path / "q.json"))
    assert [row.silent for row in rows] == [("lif2",)] * 2
    assert "8 bits, searched: silent where scales were chosen, so that nothing is known of them: lif2" in \
        capsys.readouterr().out
    assert json.loads((tmp_path / "q.json").read_text())["silent"][0]["layers"] == ["lif2"]
@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A network in floats, and the same trained on in integers of two bits."""
    folder = tmp_path_factory.mktemp("runs")
    floats = FitConfig(out=folder / "floats", epochs=2, batch_size=64, method="hard", average=0.0, threads=1,
                       data=DataConfig(steps=3, size=17), network=NetworkConfig(layers="4c5s2-ap3-16"))
    fit(floats)
    fit(replace(floats, out=folder / "ternary", epochs=1, from_=folder / "floats",
                quantise=QuantiseConfig(bits=2, train_samples=32)))
    return folder


def test_trained_rows_stand_beside_searched_ones_with_memory_cores_energy_and_a_plot(runs, tmp_path, capsys):
    rows = quantisation(runs / "floats", runs / "ternary", bits="8,2", train_samples=24, sample=Sample("validation"),
                        further=Further("horowitz45nm_int8", tmp_path / "q.svg"))
    trained = rows[-1]
    assert [row.scale for row in rows] == ["searched", "max_abs"] * 2 + ["trained"]
    assert trained.bits == 2 and trained.changed is None and trained.floats == rows[0].floats
    stored = checkpoint.load(runs / "ternary" / "best.pt")
    assert trained.integers == stored.history[-1]["hard_accuracy"]  # what was validated is what is deployed
    assert rows[0].memory > rows[2].memory and rows[0].cores >= rows[2].cores > 0
    assert all(row.energy > 0 for row in rows)
    # a spike of a trained network costs what its counts say
    found = energy(runs / "ternary", prices="horowitz45nm_int8", ann="", sample=Sample("validation")).rows
    assert next(row.nanojoules for row in found if row.term == "total") == pytest.approx(trained.energy)
    assert "trained" in (tmp_path / "q.svg").read_text() and "synapse kB" in capsys.readouterr().out
    alone, = quantisation(runs / "ternary", sample=Sample("validation"))
    assert alone.floats is None and alone.loss is None and alone.integers == trained.integers
    with pytest.raises(UsageError, match="name it so"):
        quantisation(runs / "ternary", further=Further(plot=tmp_path / "q.png"))


def test_a_graph_that_was_quantised_after_training_is_no_float_model(runs, tmp_path):
    quantise(runs / "floats" / "best.pt", Output(tmp_path / "q.nir"), Quantisation(train_samples=16), samples=16)
    with pytest.raises(UsageError, match="was quantised after training; give the float graph"):
        quantisation(tmp_path / "q.nir", sample=Sample("validation"))


def test_one_command_prunes_fine_tunes_and_counts_what_it_saves(runs, tmp_path):
    options = dict(shares="0,0.9", out=tmp_path / "pruned", split="validation", tuning=Tuning(epochs=1))
    rows = pruning(runs / "floats", **options)
    whole, most = rows
    assert (whole.share, most.share) == (0, 0.9) and most.zero >= 0.89 and whole.zero < 0.5
    assert most.footprint.synapses < 0.3 * whole.footprint.synapses
    assert most.footprint.memory < whole.footprint.memory and most.synops < whole.synops
    graph = Model.open(tmp_path / "pruned" / "90").graph
    assert most.footprint.memory == sum(core.synapse_bits for cores in map_graph(
        graph, limits_of(chip("loihi2"))).cores.values() for core in cores) / 8
    counted, = operations(tmp_path / "pruned" / "90", sample=Sample("validation"))
    inside = [layer for layer in counted.counts.synapses if layer.layer != "readout"]
    assert most.synops == pytest.approx(sum(layer.acs + layer.macs for layer in inside) / counted.counts.samples)
    before = (tmp_path / "pruned" / "90" / "last.pt").stat().st_mtime_ns
    assert pruning(runs / "floats", **options) == rows  # nothing is trained twice
    assert (tmp_path / "pruned" / "90" / "last.pt").stat().st_mtime_ns == before


@pytest.mark.parametrize(("shares", "message"), [("much", "numbers joined by commas"), ("0.5,1", "below 1")])
def test_shares_that_are_none_are_refused(runs, shares, message):
    with pytest.raises(UsageError, match=message):
        pruning(runs / "floats", shares=shares)


def test_what_needs_floats_refuses_integers_by_name(runs, tmp_path):
    with pytest.raises(UsageError, match="is no network in floats"):
        pruning(runs / "ternary", out=tmp_path)
    with pytest.raises(UsageError, match="was trained in integers, hard spikes and all"):
        calibrate(runs / "ternary")
    with pytest.raises(UsageError, match="gradients are looked at in floats"):
        gradients(runs / "ternary", 8, Recordings())
