"""`python -m eval quantisation`: fewer bits cost more, and the means are those of the rows."""

import pytest

from eval.quantisation import quantisation
from hardspike import UsageError
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.fit import fit
from trainer.networks import NetworkConfig


def test_table_of_bits_and_scales(tmp_path):
    network = NetworkConfig(layers="8c5s3-32", batch_norm=True, reset="zero")
    config = FitConfig(out=tmp_path / "run", epochs=3, batch_size=64, method="hard", average=0.0,
                       data=DataConfig(steps=5), network=network)
    model = fit(config).best
    rows = quantisation(model, model, bits="8,2", samples=24, split="validation", csv=tmp_path / "q.csv")
    assert len(rows) == 2 * 4 + 4 and len((tmp_path / "q.csv").read_text().splitlines()) == 13
    found = {(row["bits"], row["scale"]): row for row in rows[:4]}
    assert found[8, "searched"]["loss"] < 8 and found[8, "max_abs"]["spikes changed %"] < 20
    assert found[2, "max_abs"]["spikes changed %"] > found[2, "searched"]["spikes changed %"] > \
        found[8, "searched"]["spikes changed %"] > 0
    for row in rows[8:]:
        assert row["loss"] == pytest.approx(found[row["bits"], row["scale"]]["loss"])
    with pytest.raises(UsageError, match="whole numbers"):
        quantisation(model, bits="eight")
