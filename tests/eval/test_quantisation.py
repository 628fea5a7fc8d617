"""`python -m eval quantisation`: fewer bits cost more, and the means are those of the rows."""

import json

import numpy as np
import pytest

from eval.commands.quantisation import quantisation
from eval.options import Sample, Tables
from eval.quantisation import means
from export.freeze.freeze import freeze
from export.recordings import Recordings
from hardspike import UsageError
from targets.graph import write
from tests.networks import SHAPE, busy_network, frames
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.fit import fit
from trainer.networks import NetworkConfig


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
