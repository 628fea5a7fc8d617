"""The frame cache: read once written, made anew when damaged, never half written."""

import numpy as np
import pytest

from hardspike import HardspikeError
from trainer.data.cache import cache_folder, cached

SHAPE = (3, 4, 5)
ROWS = np.arange(60, dtype=np.uint8).reshape(SHAPE)


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))


def refuse():
    raise AssertionError("the cache should have been read")
    yield


def test_second_call_reads_the_file():
    cached("a", SHAPE, iter(ROWS))
    np.testing.assert_array_equal(cached("a", SHAPE, refuse()), ROWS)


def test_writing_to_the_array_leaves_the_file():
    cached("a", SHAPE, iter(ROWS))[:] = 0
    np.testing.assert_array_equal(cached("a", SHAPE, refuse()), ROWS)


def _flip(content):
    return content[:150] + bytes([content[150] ^ 1]) + content[151:]


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:3], lambda c: c[:-20], lambda c: b"x" * len(c), _flip,
                                    lambda c: c[:-4] + b"\0\0\0\0"])
def test_a_damaged_file_is_made_anew_and_said_once(damage, capsys):
    cached("a", SHAPE, iter(ROWS))
    file = cache_folder() / "a.npy"
    file.write_bytes(damage(file.read_bytes()))
    np.testing.assert_array_equal(cached("a", SHAPE, iter(ROWS)), ROWS)
    assert capsys.readouterr().err == f"{file}: damaged; made anew\n"
    np.testing.assert_array_equal(cached("a", SHAPE, refuse()), ROWS)


def test_a_failure_half_way_leaves_nothing():
    def rows():
        yield ROWS[0]
        raise HardspikeError("bad recording")

    with pytest.raises(HardspikeError, match="bad recording"):
        cached("a", SHAPE, rows())
    assert not list(cache_folder().iterdir())


def test_a_place_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(HardspikeError, match="cannot be written"):
        cached("a", SHAPE, iter(ROWS))


def test_more_than_the_disk_holds_is_refused_at_once():
    with pytest.raises(HardspikeError, match="GB are free"):
        cached("a", (10**9, 10**9), refuse())
