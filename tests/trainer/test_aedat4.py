"""AEDAT 4.0 is decoded in a process of its own: damaged files are one line, whatever the decoder does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("aedat", reason="AEDAT 4.0 needs aedat: pip install aedat")

from hardspike import HardspikeError
from tests.trainer.test_data_cifar10_dvs import recording, write_aedat4, write_set
from trainer.data.readers import aedat4
from trainer.data.readers.aedat4 import read_aedat4

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path):
    write_aedat4(tmp_path / "a.aedat4", recording(3, 5))
    return tmp_path / "a.aedat4"


def damaged(content: bytes) -> bytes:
    """A table of the last packet lies beyond its end: the decoder panics, and prints where."""
    place = content.rindex(b"EVTS") - 4
    return content[:place] + b"\xf0\xff\xff\x7f" + content[place + 4 :]


def test_a_panic_of_the_decoder_is_one_line(tmp_path):
    file = write_set(tmp_path / "data", ".aedat4") / "cat/cifar10_cat_10.aedat4"
    file.write_bytes(damaged(file.read_bytes()))
    words = ["data", "cifar10_dvs", "--path", tmp_path / "data", "--out", tmp_path / "x.npz"]
    done = subprocess.run([sys.executable, "-m", "trainer", *map(str, words)], cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, "HARDSPIKE_CACHE": str(tmp_path / "cache")})
    lines = [line for line in done.stderr.splitlines() if "frames:" not in line and line.strip()]
    assert done.returncode == 1 and len(lines) == 1 and "cifar10_cat_10.aedat4: cannot be read as AEDAT 4.0" in lines[0]


def test_a_decoder_that_ends_is_one_line_and_the_next_file_is_read(file):
    def events():
        return read_aedat4(file, 128)["x"].tolist()

    assert events() == [3, 127, 3, 5]
    aedat4._worker(os.getpid()).kill()
    with pytest.raises(HardspikeError, match=r"a\.aedat4: cannot be read as AEDAT 4\.0 \(the decoder ended"):
        events()
    assert events() == [3, 127, 3, 5]


def test_a_packet_that_asks_for_all_memory_is_one_line(file, monkeypatch):
    content = file.read_bytes()
    at = content.index(b"</dv>") + 5
    at += next(i for i in range(64) if content[at + i : at + i + 4] == b"\0\0\0\0" and content[at + i + 4] > 20)
    file.write_bytes(content[: at + 4] + b"\xff\xff\xff\x7f" + content[at + 8 :])  # 2 GB
    monkeypatch.setattr(aedat4, "MEMORY", 1 << 28)
    aedat4._end(aedat4._worker(os.getpid()))  # the next one has this limit
    with pytest.raises(HardspikeError, match=r"the decoder ended with status -6, as where it lacks memory"):
        read_aedat4(file, 128)
