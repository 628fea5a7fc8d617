"""Several processes: the same run as one process with the joint minibatch; what ends one ends all."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import trainer.data
import trainer.fit
from hardspike import UsageError
from trainer import checkpoint, distributed
from trainer.config import FitConfig
from trainer.data import Data, DataConfig, Split
from trainer.data.augment import AugmentConfig, augment
from trainer.methods.a2sg import A2sgConfig
from trainer.methods.sast import SastConfig
from trainer.networks import NetworkConfig, build

TOLERANCE = 1e-9
"""Of every weight after six steps in float64. (In float32 AdamW makes as large a step of the smallest gradient, and of
the rounding error in it, as of any.)"""
OPTIONS = {
    "sast": dict(rmp=0.1, label_smoothing=0.1, network=NetworkConfig("4c5s4-8r-16", batch_norm=True)),
    "previous": dict(sast=SastConfig(second_batch="previous", adaptive="kwon")),
    "a2sg": dict(method="a2sg", a2sg=A2sgConfig(sam=True, recordings=20)),
    "no_norm": dict(method="surrogate", network=NetworkConfig("4c5s4-16", learn_beta=True)),
}


def train(folder: Path) -> None:
    """Each of OPTIONS in float64, on 96 recordings."""
    def load(config):
        data = trainer.data.load(config)
        data = replace(data, train=Split(data.train.frames[:96], data.train.labels[:96], data.train.ids[:96]))
        data.to_input = lambda frames: Data.to_input(data, frames).double()
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.fit, "load", load)
        patch.setattr(trainer.fit, "build", lambda *words: build(*words).double())
        for name, options in OPTIONS.items():
            shared = dict(out=folder / name, epochs=2, batch_size=32, threads=1, device="cpu", data=DataConfig(steps=4),
                          augment=AugmentConfig(elastic=1.0), network=NetworkConfig("4c5s4-16", batch_norm=True))
            trainer.fit.fit(FitConfig(**shared | options))


def torchrun(folder: Path, script: str) -> subprocess.CompletedProcess:
    """Two processes of `script`, which finds `folder` under that name."""
    (folder / "script.py").write_text(f"from pathlib import Path\nfolder = Path({str(folder)!r})\n{script}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1",
                   "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run([*command, folder / "script.py"], capture_output=True, text=True, timeout=300,
                          env=environment)


def test_two_processes_reach_the_weights_of_one(tmp_path):
    train(tmp_path / "one")
    done = torchrun(tmp_path, """
from hardspike import log
from tests.trainer.test_distributed import train
log.show()
train(folder / "two")
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   2/2") == len(OPTIONS)  # one process speaks
    for name in OPTIONS:
        one, two = (checkpoint.load(tmp_path / folder / name / "last.pt") for folder in ("one", "two"))
        for key, value in one.training["network"].items():
            torch.testing.assert_close(two.training["network"][key], value, rtol=0, atol=TOLERANCE)
        for ours, theirs in zip(one.history, two.history, strict=True):
            assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=1e-5)
            assert theirs["gradient_evaluations"] == ours["gradient_evaluations"]
        if name == "a2sg":
            assert theirs["sgv"] == pytest.approx(ours["sgv"], rel=1e-3)
            for key, widths in one.training["method"]["widths"].items():
                assert torch.equal(widths, two.training["method"]["widths"][key]) and (widths != 0.5).any()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see its threads")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """One that did aborted the process now and then, when the interpreter ended before it."""
    done = torchrun(tmp_path, """
import atexit
from trainer import distributed, fit
from trainer.config import FitConfig
from trainer.networks import NetworkConfig
def threads():
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]
atexit.register(lambda: (folder / f"after {distributed.os.environ['RANK']}").write_text(repr(threads())))
fit.fit(FitConfig(out=folder / "run", epochs=1, device="cpu", network=NetworkConfig("4c5s4-16")))
(folder / f"before {distributed.rank()}").write_text(repr(threads()))
""")
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        assert "gloo" in (tmp_path / f"before {rank}").read_text()
        assert (tmp_path / f"after {rank}").read_text() == "[]"


def test_an_error_in_one_process_ends_all(tmp_path):
    done = torchrun(tmp_path, """
from trainer import distributed, fit
from trainer.run import Run
from trainer.config import FitConfig
loss = Run.loss
Run.loss = lambda *a, **k: 1 / 0 if distributed.rank() == 1 else loss(*a, **k)
fit.fit(FitConfig(out=folder / "run", device="cpu"))
""")
    assert done.returncode != 0 and "ZeroDivisionError" in done.stderr


def test_a_failure_of_the_first_process_ends_those_that_wait_for_it(tmp_path):
    """By themselves: the first one does not die of it here, so that torchrun has nobody to kill."""
    done = torchrun(tmp_path, """
import time
import torch
from hardspike import HardspikeError
from trainer import distributed
distributed.join(torch.device("cpu"))
try:
    with distributed.first_process_first():
        if distributed.rank() == 0:
            raise ZeroDivisionError
        (folder / "went on").touch()
except (HardspikeError, ZeroDivisionError) as error:
    (folder / f"error {distributed.rank()}").write_text(f"{type(error).__name__} {error}")  # lines of two processes mix
with distributed.first_process_first():  # and the next block is in step again
    (folder / f"next {distributed.rank()}").touch()
""")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "error 0").read_text().startswith("ZeroDivisionError")
    assert (tmp_path / "error 1").read_text().startswith("HardspikeError process 1 ends, since process 0 failed")
    assert (tmp_path / "next 0").exists() and (tmp_path / "next 1").exists()
    assert not (tmp_path / "went on").exists()


def test_batches_that_cannot_be_cut_into_equal_shards_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 3)
    for size, recordings in ((32, 1000), (33, 32)):
        with pytest.raises(UsageError, match=f"batch_size {size}: 3 processes need a multiple of 3"):
            trainer.fit._check_shards(FitConfig(batch_size=size), recordings)
    trainer.fit._check_shards(FitConfig(batch_size=33), 1000)


@pytest.mark.parametrize("options", [dict(), dict(elastic=2.0), dict(shift=0.0, rotation=0.0, drop=0.5, jitter=2)])
def test_a_shard_is_augmented_as_within_its_minibatch(options):
    frames, config = (torch.rand(12, 6, 2, 9, 9) < 0.3).float(), AugmentConfig(**options)
    whole = augment(frames, torch.Generator().manual_seed(3), config)
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        assert torch.equal(augment(frames[part], torch.Generator().manual_seed(3), config, part, 12), whole[part])
