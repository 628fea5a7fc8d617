"""A network in a chip's integers: its forward, its gradients, how a run begins, stops and goes on, what it refuses."""

import itertools
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from hardspike import HardspikeError, UsageError, run
from targets.chips import CHIPS, limits_of
from tests.conftest import compiled
from tests.networks import BUSY, SHAPE, THEORY, busy_network, frames
from trainer import checkpoint, quantise
from trainer.__main__ import COMMANDS
from trainer.config import FitConfig
from trainer.data import DataConfig, load
from trainer.evaluate import evaluate
from trainer.fit import fit
from trainer.methods.a2sg import A2sgConfig
from trainer.methods.sast import SastConfig
from trainer.networks import NetworkConfig
from trainer.networks.integers import IntegerNetwork, folded, rounded
from trainer.neurons import scan_native
from trainer.neurons.dynamics import Dynamics
from trainer.neurons.fixed import Fixed, fixed_forward
from trainer.neurons.scan import lif_backward, scan
from trainer.neurons.spikes import Surrogate
from trainer.neurons.windows import WINDOWS, Windows
from trainer.quantise import QuantiseConfig, first_epoch
from trainer.run import is_best
from trainer.search import to_integers

STATE = 1 << 23


def in_whole_numbers(current, bias, keep, threshold, reset):
    """Lava's formulas once more, in Python's integers' arithmetic: (spikes, membranes) of (T, N) int64."""
    v, s, spikes, membranes = np.zeros_like(current[0]), np.zeros_like(current[0]), [], []
    for a in current:
        u = (a - bias) * 64
        u = np.where(u > STATE, u - 2 * STATE, u)
        u = np.where(u <= -STATE, u + 2 * STATE, u)
        if reset == "subtract_leaky":
            v = v - 64 * threshold * np.asarray(s)
        v = np.sign(v) * ((np.abs(v) * keep) >> 12) + u + 64 * bias - (64 * threshold * s if reset == "subtract" else 0)
        v = np.clip(v, 1 - STATE, STATE - 1)
        s = (v > 64 * threshold).astype(np.int64)
        spikes.append(s)
        membranes.append(v)
        v = v * (1 - s) if reset == "zero" else v
    return np.stack(spikes), np.stack(membranes)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none", "subtract_leaky"])
@pytest.mark.parametrize("size", [3, 60, 4000, 60000, 300000], ids=lambda size: f"inputs about {size}")
@pytest.mark.parametrize("keep", [0, 1, 3686, 4095, 4096])
def test_the_forward_is_the_chips_where_nothing_where_all_wraps_and_saturates(reset, size, keep):
    current = (torch.randn(40, 1500) * size).round()
    bias = (torch.randn(1500) * min(size, 4000) / 4).round()
    threshold, scale = int(0.7 * size) + 1, 37.3
    spikes, membranes = in_whole_numbers(current.long().numpy(), bias.long().numpy(), keep, threshold, reset)
    for dtype in (torch.float32, torch.float64):
        fixed = Fixed(scale, threshold, bias.to(dtype))
        dynamics = Dynamics(Surrogate(), True, reset, fixed=fixed)
        beta = torch.tensor(keep / 4096, dtype=dtype)
        found = [fixed_forward(current.to(dtype), beta, reset, fixed)]
        if not scan_native.obstacle(current.to(dtype), beta, beta, dynamics):
            found.append(scan_native.forward(current.to(dtype), beta, beta, dynamics))
        for s, u in found:
            assert np.array_equal(s.numpy(), spikes)
            # the backward looks at the float membrane, which has to be above the float threshold where it spikes
            assert np.array_equal((u > fixed.float_threshold(u)).numpy(), spikes)
            assert np.allclose(u.double().numpy(), membranes / (64 * scale), rtol=1e-6)


@pytest.mark.parametrize("window", [None, *WINDOWS])
@pytest.mark.parametrize("reset", ["subtract", "zero", "subtract_leaky"])
def test_the_compiled_backward_in_integers_is_torchs_over_the_scale(window, reset):
    compiled("neurons/scan_native")
    current = (torch.randn(9, 3, 700, dtype=torch.float64) * 90).round()
    grad, scale = torch.randn_like(current), 41.7
    windows = window and Windows(window, torch.rand(9, dtype=torch.float64) + 0.2)
    beta = torch.tensor(3700 / 4096, dtype=torch.float64)
    fixed = Fixed(scale, 60)
    dynamics = Dynamics(Surrogate(), True, reset, windows=windows, fixed=fixed)
    _, membrane = scan_native.forward(current, beta, beta, dynamics)
    threshold = fixed.float_threshold(membrane)
    floats = lif_backward(grad, None, membrane, beta, threshold, replace(dynamics, fixed=None), (True, False))
    for backward in (scan_native.backward, lif_backward):
        found = backward(grad, None, membrane, beta, threshold, dynamics, (True, False))
        assert torch.allclose(found[0] * scale, floats[0], rtol=1e-12) and torch.allclose(found[1], floats[1])


def test_a_membrane_without_truncation_has_the_gradient_of_finite_differences():
    """Where no spike falls and nothing is cut off, u is linear in the integer current, and a in what it says."""
    current = (torch.randint(-40, 40, (5, 8)) * 64.0).double().requires_grad_()
    beta = torch.tensor(0.5, dtype=torch.float64)  # of multiples of 2^12 nothing is cut off in five steps
    dynamics = Dynamics(Surrogate("arctan", 1e-15), True, "subtract", fixed=Fixed(20.0, 1 << 16))
    weights = torch.randn(5, 8, dtype=torch.float64)
    (scan(current, beta, beta, dynamics)[1] * weights).sum().backward()
    for at in itertools.product(range(5), range(0, 8, 3)):
        moved = current.detach().clone()
        moved[at] += 64
        change = (scan(moved, beta, beta, dynamics)[1] - scan(current.detach(), beta, beta, dynamics)[1]) * weights
        assert change.sum().item() / 64 == pytest.approx(current.grad[at].item(), rel=1e-6)


def test_rounding_is_to_the_grid_and_its_gradient_the_slope_of_a_line_through_it():
    x = torch.linspace(-3, 3, 6001, requires_grad=True)
    y = rounded(x, 100.0, 32, 3)
    assert set(y.tolist()) == {32.0 * m for m in range(-3, 4)}
    inside = x.abs() < 0.9
    assert ((y - 100 * x).abs()[inside] <= 16 + 1e-3).all()
    y.sum().backward()
    assert (x.grad == 100).all()  # beyond the clip as well: a ternary weight has to come back from there
    # the mean of finite differences over a whole step of the grid
    at = torch.linspace(-0.6, 0.6, 1001)
    slopes = (rounded(at + 0.16, 100.0, 32, 3) - rounded(at - 0.16, 100.0, 32, 3)) / 0.32
    assert slopes.mean().item() == pytest.approx(100, rel=0.03)


def test_a_copy_of_other_precision_has_the_same_integers():
    x = torch.rand(100000) * 2 - 1
    assert torch.equal(rounded(x, 77.7, 4, 7), rounded(x.double(), 77.7, 4, 7).float())


@pytest.mark.parametrize("layers", ["6c5s2-8c3-32", "6c5s2p3-ap2-8rs2-8r-ap", "8c3s4-8r-16"])
def test_folded_computes_what_the_network_does(layers):
    network, x = busy_network(layers=layers, batch_norm=True).double(), frames().double()
    one, two = {}, {}
    with torch.no_grad(), network.mode(hard=True):
        logits = network(x, one)
        plain = folded(network)
        assert torch.allclose(plain(x, two), logits, rtol=1e-6, atol=1e-9)
    assert not any("norm" in name for name in plain.layers) and one.keys() == two.keys()
    assert all((one[name] != two[name]).sum() <= 1e-4 * one[name].numel() for name in one)


def test_limits_are_those_of_the_chips():
    for name in ("loihi1", "loihi2"):
        limits = limits_of(CHIPS[name])
        assert limits.weight_max.value == quantise.WEIGHT and -limits.weight_min.value >= quantise.WEIGHT
        assert (limits.bias.value, limits.threshold.value) == (quantise.BIAS, quantise.THRESHOLD)
    assert limits_of(CHIPS["loihi1"]).decay.value == 4095 and limits_of(CHIPS["loihi1"]).resets == ("zero",)


def test_a_bias_never_leaves_the_chips_range():
    network = to_integers(busy_network(), frames(), "loihi2", 4)
    with torch.no_grad():
        network.layers["conv1"].bias.fill_(1e6)
        network.layers["dense4"].bias.fill_(-1e6)
    assert network.weights("conv1")[1].max() == quantise.BIAS and network.weights("dense4")[1].min() == -quantise.BIAS


@pytest.fixture
def small(tmp_path) -> FitConfig:
    return FitConfig(out=tmp_path / "run", method="hard", epochs=4, batch_size=64, threads=1,
                     data=DataConfig(steps=3, size=17), network=NetworkConfig(
                         layers="4c5s2-ap3-16", surrogate=Surrogate("arctan")),
                     quantise=QuantiseConfig(bits=3, epochs=2, train_samples=32))


@pytest.mark.parametrize("options", [
    dict(method="sast", average=0.9), dict(method="sast", sast=SastConfig(ascent="momentum")),
    dict(method="a2sg", a2sg=A2sgConfig(window="tri")),
    dict(method="surrogate", network=NetworkConfig(layers="4c5s4-4r-16", reset="zero", learn_beta=True),
         quantise=QuantiseConfig(bits=2, epochs=2, train_samples=32, target="loihi1"))])
def test_a_resumed_run_reaches_the_same_integers(small, tmp_path, options):
    """It dies before its first epoch in integers, goes on, dies among them, and goes on once more."""
    config = replace(small, **options)
    whole, broken = fit(config), replace(config, out=tmp_path / "broken")
    for dies in (3, 4):
        script = (f"import trainer.run as r, pickle, os\nepoch = r.Run.epoch\n"
                  f"r.Run.epoch = lambda self, e: os._exit(9) if e == {dies} else epoch(self, e)\n"
                  f"from trainer.fit import fit\nfit(pickle.loads({pickle.dumps(broken)!r}), resume={dies == 4})")
        assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 9
        assert isinstance(checkpoint.load(broken.out / "last.pt").network, IntegerNetwork) == (dies == 4)
    fit(broken, resume=True)
    for name in ("last.pt", "best.pt"):
        one, two = (checkpoint.load(folder / name).network for folder in (whole.folder, broken.out))
        assert isinstance(one, IntegerNetwork) and one.integers == two.integers
        mine, theirs = one.state_dict(), two.state_dict()
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_the_logged_accuracy_is_that_of_the_stored_integers_and_only_integers_are_kept(small):
    made = fit(small)
    assert [row.get("bits") for row in made.history] == [None, None, 3, 3]
    stored, data = checkpoint.load(made.best), load(small.data)
    found = evaluate(stored.network, data, data.validation, hard=True)
    assert found.accuracy == made.history[stored.epoch - 1]["hard_accuracy"] and stored.epoch > 2
    assert set(stored.network.weights("conv1")[0].unique().tolist()) <= {32.0 * m for m in range(-3, 4)}


def test_is_best_compares_integers_with_integers():
    rows = [{"hard_accuracy": 0.99}, {"hard_accuracy": 0.6, "bits": 2}]
    assert is_best(rows, 1000) and not is_best([*rows, {"hard_accuracy": 0.3, "bits": 2}], 1000)


def test_a_run_begins_from_a_checkpoint_with_its_network_and_recordings(small, tmp_path):
    floats = fit(replace(small, epochs=2, quantise=QuantiseConfig()))
    tuned = replace(FitConfig(out=tmp_path / "tuned", method="hard", epochs=1, threads=1, batch_size=64),
                    from_=floats.folder, quantise=QuantiseConfig(bits=4, train_samples=32))
    assert first_epoch(tuned) == 1
    stored = checkpoint.load(fit(tuned).best)
    assert stored.config.network == small.network and stored.config.data == small.data
    assert stored.network.integers.bits == 4
    other = replace(tuned, out=tmp_path / "chip", quantise=QuantiseConfig(bits=4, target="loihi1"))
    with pytest.raises(UsageError, match="loihi1 resets to zero only"):  # of the network that it begins from
        fit(other)
    zero = fit(replace(small, epochs=1, out=tmp_path / "zero", quantise=QuantiseConfig(), network=replace(
        small.network, reset="zero")))
    fit(replace(other, from_=zero.folder, quantise=replace(other.quantise, train_samples=32)))
    again = replace(tuned, out=tmp_path / "again", from_=tmp_path / "tuned")
    with pytest.raises(UsageError, match="trained in integers already; begin from the network in floats"):
        fit(again)
    with pytest.raises(UsageError, match=r"network.layers: 4c5s2-ap3-16 -> 8-8"):
        fit(replace(tuned, out=tmp_path / "other", network=NetworkConfig(layers="8-8")))
    assert run("trainer", COMMANDS, ["fit", "--from", str(floats.folder), "--out", str(tmp_path / "cli"), "--epochs",
                                     "1", "--prune", "0.5", "--threads", "1", "--batch_size", "64"]) == 0


def test_what_is_pruned_stays_zero_through_every_step_and_the_integers(small, tmp_path):
    floats = fit(replace(small, epochs=1, quantise=QuantiseConfig()))
    pruned = FitConfig(out=tmp_path / "pruned", from_=floats.folder, prune=0.75, method="sast", epochs=2, threads=1,
                       batch_size=64, quantise=QuantiseConfig(bits=8, epochs=1, train_samples=32))
    stored = checkpoint.load(fit(pruned).best).network
    before = checkpoint.load(floats.best).network
    for name in ("conv1", "dense3"):
        weight, zero = stored.layers[name].weight, stored.layers[name].weight == 0
        assert int(zero.sum()) == int(0.75 * weight.numel()) and (stored.weights(name)[0][zero] == 0).all()
        magnitude = before.layers[name].weight.abs()
        assert magnitude[zero].max() <= magnitude[~zero].min()
    assert (stored.layers["readout"].weight != 0).all()


@pytest.mark.parametrize(("words", "message"), [
    (["--quantise.bits", "1"], "a weight has 2 (ternary) to 8 bits"),
    (["--quantise.bits", "4", "--quantise.target", "loihi3"], "did you mean 'loihi2'"),
    (["--quantise.bits", "4", "--quantise.epochs", "19"], "the run has 18"),
    (["--quantise.bits", "4", "--precision", "bf16"], "bf16 rounds integers"),
    (["--quantise.bits", "4", "--device", "cuda"], "exact on the CPU alone"),
    (["--quantise.bits", "4", "--data.encoding", "count"], "gives fractions"),
    (["--quantise.bits", "4", "--diagnose", "1"], "leave it out with quantise.bits"),
    (["--quantise.bits", "4", "--network.layers", "4c3-mp2-8"], "max pooling"),
    (["--quantise.bits", "4", "--network.layers", "espikeformer_small", "--network.beta", "0.25",
      "--network.detach_reset", "true"], "share one membrane"),
    (["--quantise.bits", "4", "--network.layers", "espikeformer_small", "--network.beta", "0", "--quantise.target",
      "loihi1"], "keeps at least 1/4096 of a membrane"),
    (["--quantise.bits", "4", "--quantise.target", "loihi1"], "loihi1 resets to zero only"),
    (["--quantise.bits", "4", "--network.plif", "true"], "train with learn_beta"),
    (["--quantise.bits", "4", "--quantise.target", "loihi1", "--network.reset", "subtract_leaky"], "loihi1 resets to"),
    (["--quantise.bits", "4", "--network.beta", "0.99995"], "no leak at all"),
    (["--quantise.bits", "4", "--network.layers", "4c5s2-ap2-4c3-8"], "'pool2': pools (17, 17) by (2, 2)"),
    (["--prune", "0.5"], "give --from CHECKPOINT"),
    (["--prune", "1"], "must lie in [0, 1)"),
])
def test_what_does_not_go_together_is_refused_in_one_line_with_status_2(words, message, tmp_path, capfd):
    try:
        status = run("trainer", COMMANDS, ["fit", "--out", str(tmp_path / "run"), *words])
    except SystemExit as leaving:
        status = leaving.code
    error = capfd.readouterr().err
    assert status == 2 and message in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c["integers"]["layers"]["lif1"].update(scale=-1.0), "which no chip holds"),
    (lambda c: c["integers"]["layers"]["lif1"].update(shortcut=64), "which no chip holds"),
    (lambda c: c["integers"]["layers"].pop("lif1"), "integers of layers"),
    (lambda c: c["integers"].update(bits=99), "2 to 8"),
    (lambda c: c["integers"].update(target="loihi7"), "loihi1, loihi2, none are known"),
    (lambda c: c.update(integers=[3]), "must hold keys and values"),
])
def test_damaged_integers_of_a_checkpoint_are_refused_by_name(change, message, tmp_path):
    network = to_integers(busy_network(), frames(), "loihi2", 4)
    path = tmp_path / "x.pt"
    checkpoint.save(checkpoint.Checkpoint(FitConfig(method="hard", network=NetworkConfig(**BUSY)), network, SHAPE, 10,
                                          1, [], THEORY), path)
    assert checkpoint.load(path).network.integers == network.integers
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(HardspikeError, match=message) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_environment_of_the_torch_code_gives_the_same_integers(monkeypatch):
    network, x = to_integers(busy_network(), frames(), "loihi2", 3).eval(), frames()
    network.set_mode(True)
    found = []
    for kernel in ("", "torch"):
        monkeypatch.setitem(os.environ, "HARDSPIKE_KERNEL", kernel)
        record: dict = {}
        logits = network(x, record)
        found.append((logits, record))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])
