"""Mixed precision against float32, memory formats, minibatches made ahead, the device."""

import itertools
import sys
from pathlib import Path

import pytest
import torch

import trainer.run
from hardspike import HardspikeError
from trainer import checkpoint, hardware
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.fit import fit
from trainer.networks import NetworkConfig
from trainer.quantise import QuantiseConfig


@pytest.fixture
def small(tmp_path):
    def make(name: str, **options) -> FitConfig:
        return FitConfig(out=tmp_path / name, **dict(epochs=1, batch_size=128, threads=1, device="cpu",
                                                     data=DataConfig(steps=4),
                                                     network=NetworkConfig("4c5s4-8r-16", batch_norm=True)) | options)
    return make


def test_bf16_is_near_float32_and_resumes_to_the_same_weights(small, capsys, monkeypatch):
    exact = fit(small("float32")).history[0]
    options = dict(precision="bf16", channels_last=True, epochs=2)
    whole = fit(small("whole", **options))
    assert "bf16 on the first minibatch: loss" in capsys.readouterr().out
    assert whole.history[0]["train_loss"] == pytest.approx(exact["train_loss"], rel=0.02)
    assert whole.history[0]["train_loss"] != exact["train_loss"]
    epoch = trainer.run.Run.epoch
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(trainer.run.Run, "epoch", lambda run, number: epoch(run, number) if number < 2 else 1 / 0)
        fit(small("broken", **options))
    one, two = (checkpoint.load(run.folder / "last.pt").training["network"]
                for run in (whole, fit(small("broken", **options), resume=True)))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert {value.dtype for value in one.values()} == {torch.float32, torch.int64}


def test_bf16_far_from_float32_is_refused():
    weights = [torch.ones(4, requires_grad=True)]
    pull = {"float32": torch.tensor([1.0, 1, 1, 1]), "bf16": torch.tensor([1.0, 1, 1, 1.1])}
    assert "cosine of the gradients 0.99" in hardware.check_precision(weights, lambda p: (weights[0] * pull[p]).sum())
    for far in (torch.tensor([1.0, -3, 1, 5]), torch.full((4,), 1.1), torch.full((4,), torch.nan)):
        pull["bf16"] = far
        with pytest.raises(HardspikeError, match=r"precision bf16: .* take --precision float32"):
            hardware.check_precision(weights, lambda p: (weights[0] * pull[p]).sum())


def test_channels_last_and_minibatches_made_ahead_change_nothing_but_the_speed(small, monkeypatch):
    plain = fit(small("plain")).history[0]
    last = fit(small("last", channels_last=True)).history[0]
    assert last["train_loss"] == pytest.approx(plain["train_loss"], rel=2e-3)
    streams = trainer.run.Run._streams
    monkeypatch.setattr(trainer.run.Run, "_streams",
                        lambda run, epoch: [hardware.made_ahead(stream) for stream in streams(run, epoch)])
    ahead = fit(small("ahead")).history[0]
    machine = {"train_seconds": 0, "peak_memory": 0}
    assert {**ahead, **machine} == {**plain, **machine}


def test_items_made_ahead_come_in_order_and_bring_their_errors():
    items = hardware.made_ahead(itertools.count())
    assert [next(items) for _ in range(50)] == list(range(50))

    def broken():
        yield 1
        raise HardspikeError("recording lost")

    items = hardware.made_ahead(broken())
    assert next(items) == 1
    with pytest.raises(HardspikeError, match="recording lost"):
        next(items)


def test_a_system_without_rusage_trains_all_the_same(monkeypatch):
    """Windows has neither /proc nor a module `resource`."""
    def absent(path: Path) -> str:
        raise FileNotFoundError(path)

    assert "GB" in hardware.peak_memory(torch.device("cpu"))
    monkeypatch.setattr(hardware.Path, "read_text", absent)
    assert "GB" in hardware.peak_memory(torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "resource", None)
    assert hardware.peak_memory(torch.device("cpu")) == "peak memory not known on this system"


def test_more_threads_than_processors_are_as_many_as_these(monkeypatch, caplog):
    """Nothing is started here that a machine could run out of."""
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: 4)
    for count in (3, 4, 5, 10**7):
        with hardware.cpu_threads(count):
            pass
    assert asked[::2] == [3, 4, 4, 4]
    assert [record.getMessage() for record in caplog.records] == [
        f"threads {count}: this machine has 4 processors, of which each gets one" for count in (5, 10**7)]


def test_a_run_asks_for_the_same_values_each_time_and_leaves_its_callers_choice(small, monkeypatch):
    epoch, seen = trainer.run.Run.epoch, []
    monkeypatch.setattr(trainer.run.Run, "epoch", lambda run, number: seen.append(
        (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)) or epoch(run, number))
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "benchmark", True)
        fit(small("run"))
        assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic
    assert seen == [(True, False)]


@pytest.mark.parametrize(("bits", "device"), [(4, "cpu"), (None, None)])
def test_integers_take_the_cpu_unasked(small, monkeypatch, bits, device):
    """Where there is a GPU, too: they are exact on the CPU alone."""
    asked = []
    monkeypatch.setattr(hardware, "choose_device", lambda name: asked.append(name) or torch.device("cpu"))
    fit(small("run", device=None, method="hard", quantise=QuantiseConfig(bits=bits)))
    assert asked == [device]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(small):
    assert hardware.choose_device(None).type == "cpu"
    with pytest.raises(HardspikeError, match="device cuda: this PyTorch sees no GPU"):
        fit(small("cuda", device="cuda"))
