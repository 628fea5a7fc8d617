"""A short round of the campaign, everything that it has found before, and that it would find what it looks for."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from tests.fuzz import corpus, machine, mutate
from tests.fuzz.kinds import KINDS, Kind

ROUND = 8
"""Inputs of each kind."""


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch):
    monkeypatch.setenv("HARDSPIKE_KERNEL", "torch")  # starting one is what is watched for


def ran(*words: object) -> str:
    """What the command said; in a process of its own, since the children of one that has threads may wait for ever."""
    done = subprocess.run([sys.executable, "-m", *map(str, words)], cwd=machine.ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_round_of_every_kind_and_all_that_was_found_before():
    said = ran("tests.fuzz", "--seed", 0, "--count", ROUND * len(KINDS), "--corpus")
    count = ROUND * len(KINDS) + len(list(corpus.files()))
    assert f"seed 0: {count} inputs" in said and said.rstrip().endswith(" 0 faults")


@pytest.mark.slow
def test_a_long_round_of_every_kind():
    assert ran("tests.fuzz", "--seed", 1, "--count", 20_000).rstrip().endswith(" 0 faults")


@pytest.mark.parametrize("name", [name for name in KINDS if name != "resume"])  # which trains: seconds differ
def test_an_input_is_its_seed_and_number(name, tmp_path):
    made = []
    for folder in ("folder-x", "folder-y"):
        machine.prepare(tmp_path / folder)
        path = KINDS[name].make(random.Random(f"{name}/0/1"), tmp_path / folder / "work")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        made.append([file.read_bytes().replace(folder.encode(), b"") for file in files if file.is_file()])
    assert len(made[0]) == len(made[1])
    if not any(content.startswith(b"\x89HDF") for content in made[0]):  # which keeps the places of what it deleted
        assert made[0] == made[1]


# ---------------------------------------------------------------------------------------- the machine


def _traceback(path):
    raise KeyError("x")


def _hang(path):
    time.sleep(60)


def _crash(path):
    os.kill(os.getpid(), signal.SIGKILL)


def _imports(path):
    __import__(mutate.CANARY)


def _opens(path):
    (path.parent.parent / "canaries" / f"{mutate.CANARY}.yaml").read_text()


def _opens_in_c(path):
    with pytest.raises(OSError):
        h5py.File(path.parent.parent / "canaries" / f"{mutate.CANARY}.h5")


def _opens_elsewhere(path):
    Path("/etc/hostname").exists() and open("/etc/hostname").close()


def _starts(path):
    subprocess.run(["true"])


def _connects(path):
    with socket.socket() as one, pytest.raises(OSError):
        one.connect(("127.0.0.1", 9))


def _memory(path):
    bytearray(8 << 30)


@pytest.mark.parametrize(
    ("use", "result"),
    [
        (lambda path: None, "ok"),
        (_traceback, "traceback"),
        (_hang, "hang"),
        (_crash, "signal"),
        (_imports, "opened"),
        (_opens, "opened"),
        (_opens_in_c, "opened"),
        (_opens_elsewhere, "opened"),
        (_starts, "opened"),
        (_connects, "opened"),
        (_memory, "memory"),
    ],
)
def test_the_machine_sees(use, result, tmp_path, monkeypatch):
    def make(r, folder):
        (folder / "in").write_bytes(b"x")
        return folder / "in"

    monkeypatch.setitem(KINDS, "trial", Kind(make, use))
    monkeypatch.setattr(machine, "SLOWEST", 2)
    found = list(machine.run("trial", 0, iter(range(2)), tmp_path))
    assert [(outcome.number, outcome.result) for outcome in found] == [(0, result), (1, result)]


def test_a_fault_is_kept_as_small_as_it_can_be(tmp_path, monkeypatch):
    def make(r, folder):
        (folder / "in.bin").write_bytes(b"a" * 500 + b"fault" + b"b" * 500)
        return folder / "in.bin"

    def use(path):
        if b"fault" in path.read_bytes():
            raise KeyError("x")

    monkeypatch.setitem(KINDS, "trial", Kind(make, use))
    monkeypatch.setattr(corpus, "FOLDER", tmp_path / "corpus")
    corpus.FOLDER.mkdir()
    outcome = next(machine.run("trial", 0, iter(range(1)), tmp_path))
    kept = corpus.keep("trial", 0, outcome, tmp_path)
    assert len(kept.read_bytes()) < 200 and b"fault" in kept.read_bytes()


# ----------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("only", ["text,picture,export nir", pytest.param("", marks=pytest.mark.slow)])
def test_a_full_disk_is_one_line_and_the_old_file_whole(only):
    assert "disk: 0 problems" in ran("tests.fuzz.faults", "disk", "--sizes", 4, "--only", only)


@pytest.mark.slow
def test_kills_leave_what_can_be_gone_on_from():
    assert "kills: 0 problems" in ran("tests.fuzz.faults", "kills", "--kills", 5)


@pytest.mark.slow
def test_two_runs_into_one_folder_do_not_mix():
    assert "concurrency: 0 problems" in ran("tests.fuzz.faults", "concurrency")
