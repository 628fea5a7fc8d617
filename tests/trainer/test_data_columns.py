"""Columns of users' own event files as others write them: polarities of -1 and 1, rows of bare numbers."""

import re
from pathlib import Path

import numpy as np
import pytest

from hardspike import HardspikeError
from trainer.data.events import Sensor
from trainer.data.readers.numpy_files import read_npy, read_npz_events


@pytest.mark.parametrize("written", [[-1, 1, 1, -1], [-1.0, 1.0, 1.0, -1.0], [0, 1, 1, 0]])
def test_polarities_of_both_kinds_are_off_and_on(written, tmp_path):
    sensor, columns = Sensor(4, 4), {"x": [0, 1, 2, 3], "y": [0] * 4, "t": [0, 1, 2, 3]}
    np.savez(tmp_path / "a.npz", p=written, **columns)
    assert read_npz_events(tmp_path / "a.npz", sensor)["p"].tolist() == [0, 1, 1, 0]
    np.savez(tmp_path / "a.npz", p=[-1, 0, 1, 1], **columns)
    with pytest.raises(HardspikeError, match="polarity -1 to 1"):
        read_npz_events(tmp_path / "a.npz", sensor)


def test_rows_of_bare_numbers_are_answered_with_a_line_that_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sensor, e = Sensor(4, 5), np.array([[4, 3, 0, 1], [1, 2, 7, -1]])
    np.savez("a.npz", e)
    np.save("a.npy", e)
    for file, read in (("a.npz", read_npz_events), ("a.npy", read_npy)):
        with pytest.raises(HardspikeError, match=r"numpy\.savez") as said:
            read(Path(file), sensor)
    line = re.search(r"numpy\.savez\(.*?\)", str(said.value))[0]
    exec(line, {"numpy": np, "e": e})
    assert read_npz_events(Path("FILE.npz"), sensor).tolist() == [(4, 3, 0, 1), (1, 2, 7, 0)]
