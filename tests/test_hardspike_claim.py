"""Claims: one owner at a time, given up by the dead, kept by the living."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from hardspike import HardspikeError, claim, claimed
from hardspike.claim import NAME
from hardspike.lock import ourselves


def _hold(folder, held):
    with claim(folder) as got:
        held.put(got)
        time.sleep(60)


def _count(folder, tries):
    """Add one to a number in a file, unprotected but for the claim."""
    for _ in range(tries):
        while True:
            with claim(folder) as got:
                if got:
                    file = folder / "number"
                    number = int(file.read_text())
                    time.sleep(0.001)
                    file.write_text(str(number + 1))
                    break
            time.sleep(0.001)


def test_one_owner_and_the_killed_ones_claim_is_taken_over(tmp_path):
    context = multiprocessing.get_context("spawn")
    held = context.Queue()
    process = context.Process(target=_hold, args=(tmp_path, held))
    process.start()
    assert held.get(timeout=30)
    with claim(tmp_path) as got:
        assert not got
    assert (tmp_path / NAME).exists()  # whoever did not get it leaves it alone
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with claim(tmp_path) as got:
        assert got
        with claim(tmp_path) as again:
            assert not again
    assert [path.name for path in tmp_path.iterdir()] == []


def test_no_two_owners_at_once(tmp_path):
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count, args=(tmp_path, 25)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "number").read_text() == "75"


@pytest.mark.parametrize(("age", "taken"), [(0, False), (1000, True)])
def test_another_machine_lives_as_long_as_it_beats(tmp_path, age, taken):
    file = tmp_path / NAME
    file.write_text(json.dumps({**ourselves(), "host": "elsewhere"}))
    os.utime(file, (time.time() - age,) * 2)
    with claim(tmp_path) as got:
        assert got is taken
    assert file.exists() is not taken


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "x"}', "\x00"])
def test_a_damaged_claim_is_one_of_unknown_owner(tmp_path, content):
    file = tmp_path / NAME
    file.write_text(content)
    with claim(tmp_path) as got:
        assert not got
    with claim(tmp_path, patience=-1) as got:
        assert got


def test_the_owner_beats_and_leaves_the_claim_of_who_took_it_for_dead(tmp_path):
    file = tmp_path / NAME
    with claim(tmp_path, beat=0.02) as got:
        assert got
        os.utime(file, (0, 0))
        time.sleep(0.2)
        assert file.stat().st_mtime > 0
        file.write_text("somebody else's")
        os.utime(file, (0, 0))
        time.sleep(0.1)
        assert file.stat().st_mtime == 0
    assert file.read_text() == "somebody else's"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HardspikeError, match="cannot be claimed"), claim(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("make", [Path.mkdir, lambda file: file.symlink_to("nowhere"), os.mkfifo])
def test_what_is_no_file_is_refused_not_waited_for(tmp_path, make):
    make(tmp_path / NAME)
    with pytest.raises(HardspikeError, match=r"\.claim: is a folder, a link or a pipe.*remove it"), claim(tmp_path):
        pass
    with pytest.raises(HardspikeError, match="remove it"):
        claimed(tmp_path)
