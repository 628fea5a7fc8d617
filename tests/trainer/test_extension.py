"""A method, a surrogate, a data source: one file and one line in its table, and it trains."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import trainer.data.sources
import trainer.run
from hardspike import HardspikeError, UsageError
from trainer import checkpoint
from trainer.analysis import theory
from trainer.config import FitConfig
from trainer.data import SOURCES, DataConfig, Sample, Source
from trainer.data.events import EVENT
from trainer.fit import fit
from trainer.methods import METHODS, Measured, Method, State, plain
from trainer.methods.a2sg import A2sgState
from trainer.methods.sast import SastState
from trainer.networks import NetworkConfig, build
from trainer.neurons.dynamics import Dynamics
from trainer.neurons.scan import implementation, lif_scan
from trainer.neurons.spikes import SURROGATES, SpikeFunction, Surrogate
from trainer.neurons.windows import WINDOWS, Windows


@pytest.fixture
def small(tmp_path):
    return FitConfig(out=tmp_path / "run", epochs=2, batch_size=128, threads=1, data=DataConfig(steps=3),
                     network=NetworkConfig(layers="4c5s4-16"))


# ------------------------------------------------------------------------------------------------ methods


@dataclass
class SignState(State):
    steps: int = 0
    epochs: int = 0
    mean: torch.Tensor | None = None


def sign_gradient(network, loss, batch, draw, config, state):
    """Signs of the gradient, as signSGD takes."""
    value = plain.gradient(network, loss, batch, draw, config, state)
    state.steps += 1
    state.mean = value if state.mean is None else 0.5 * (state.mean + value)
    for weight in network.parameters():
        if weight.grad is not None:
            weight.grad.sign_()
    return value


def sign_begin(state, epoch):
    state.epochs = epoch


def sign_end(state, config):
    return Measured({"mean_loss": state.mean.item()}, {"lif1": {"steps": state.steps}})


def test_a_method_is_one_line_in_the_table(small, monkeypatch, tmp_path):
    monkeypatch.setitem(METHODS, "sign", Method("signs", hard=True, gradient=sign_gradient, state=SignState,
                                                begin=sign_begin, end=sign_end))
    config = replace(small, method="sign")
    done = fit(config)
    assert done.history[-1]["train_loss"] < done.history[0]["train_loss"]
    assert done.history[1]["mean_loss"] > 0 and done.history[1]["layers"]["lif1"]["steps"] == 2 * (1295 // 128)
    stored = checkpoint.load(done.folder / "last.pt").training["method"]
    assert (stored["steps"], stored["epochs"], stored["gradient_evaluations"]) == (20, 2, 20)
    with pytest.raises(UsageError, match=r"'sing' is unknown; did you mean 'sign'.*known: .*, sign"):
        replace(config, method="sing")


def test_options_of_every_method_have_their_field():
    fields = vars(FitConfig())
    for name, method in METHODS.items():
        assert method.options is None or any(type(value) is method.options for value in fields.values()), name


@pytest.mark.parametrize(("state", "older"), [
    (State, {"epoch": 2, "batch": 9, "gradient_evaluations": 20}),
    (SastState, {"epoch": 2, "batch": 9, "gradient_evaluations": 20, "step": 19, "direction": [torch.ones(2)]}),
    (A2sgState, {"epoch": 2, "batch": 9, "gradient_evaluations": 20, "widths": {"lif1": torch.ones(3)}})])
def test_the_state_of_an_older_version_is_read_and_a_foreign_one_refused(state, older):
    read = state.from_dict(older, "last.pt")
    assert read.gradient_evaluations == 20 and state.from_dict(read.to_dict(), "last.pt") == read
    assert all(getattr(read, key) is older[key] for key in older if key in ("step", "direction", "widths"))
    with pytest.raises(HardspikeError, match=r"last\.pt: .* 'momentum', which this version .* another --out"):
        state.from_dict({**older, "momentum": 1}, "last.pt")


@pytest.mark.parametrize("method", ["sast", "a2sg"])
def test_a_run_of_an_older_version_goes_on(small, tmp_path, method):
    """Its state was a dict with the loop's own keys in it."""
    config = replace(small, method=method)
    whole = fit(config)
    broken = replace(config, out=tmp_path / "broken")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        one = trainer.run.Run.epoch
        patch.setattr(trainer.run.Run, "epoch", lambda run, number: one(run, number) if number < 2 else 1 / 0)
        fit(broken)
    last = torch.load(broken.out / "last.pt", weights_only=True)
    state = last["training"]["method"]
    kept = {key: state[key] for key in ("gradient_evaluations", "step", "widths") if key in state}
    last["training"]["method"] = {"epoch": 1, "batch": 9, **kept}
    torch.save(last, broken.out / "last.pt")
    fit(broken, resume=True)
    one, two = (checkpoint.load(out / "last.pt").network.state_dict() for out in (whole.folder, broken.out))
    assert all(torch.equal(one[key], two[key]) for key in one)


# --------------------------------------------------------------------------------------------- surrogates


def tanh(z, slope):
    return torch.tanh(z * (2 * slope)) / 2 + 0.5


def tanh_slope(z, slope):
    return slope / torch.cosh(z * (2 * slope)) ** 2


@pytest.fixture
def dummy(monkeypatch):
    monkeypatch.setitem(SURROGATES, "tanh", SpikeFunction(tanh, tanh_slope, "a test"))
    return Surrogate("tanh", 1.2)


@pytest.mark.parametrize("method", ["surrogate", "hard"])
def test_a_surrogate_is_one_line_in_the_table(small, dummy, method):
    """Compiled code that lacks it leaves it to torch code."""
    done = fit(replace(small, method=method, network=replace(small.network, surrogate=dummy)))
    assert done.history[-1]["train_loss"] < done.history[0]["train_loss"]
    assert checkpoint.load(done.best).config.network.surrogate == dummy


def test_torch_runs_what_the_compiled_code_lacks_and_says_why(dummy, monkeypatch):
    current, beta, theta = torch.randn(4, 3, 5, requires_grad=True), torch.tensor(0.9), torch.tensor(1.0)
    monkeypatch.setitem(WINDOWS, "dome", lambda z, width, height: (1 - (z / width) ** 2).clamp(min=0) * 0.75 / width)
    window = Windows("dome", torch.full((4,), 0.5).double())
    for dynamics, name in ((Dynamics(dummy, False, "zero"), "surrogate tanh"),
                           (Dynamics(Surrogate(), True, "zero", windows=window), "window dome")):
        assert implementation(current, beta, theta, dynamics).startswith(f"torch: {name}: not among the compiled ones")
        spikes, _ = lif_scan(current, beta, theta, dynamics.surrogate, hard=dynamics.hard, reset="zero",
                             detach_reset=False, windows=dynamics.windows)
        gradient, = torch.autograd.grad(spikes.sum(), current)
        assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_theory_takes_its_lipschitz_constant(monkeypatch):
    """Steepest beside the threshold, twice the slope there: q goes by the steepest place."""
    monkeypatch.setitem(SURROGATES, "odd", SpikeFunction(tanh, tanh_slope, "a test", lipschitz=2.0))
    network = build(NetworkConfig("4c5s4-16", beta=0.5, surrogate=Surrogate("odd", 0.4)), (2, 34, 34), 10)
    assert theory.report(network, False)["q_loose"] == pytest.approx(0.5 + 2 * 0.4)


@pytest.mark.parametrize(("name", "shifted"), [(name, shifted) for name in SURROGATES for shifted in (False, True)])
def test_constants_of_each_surrogate_are_those_of_its_function(name, shifted):
    surrogate, theta = Surrogate(name, 0.7, shifted), torch.tensor(0.9, dtype=torch.float64)
    z = torch.linspace(-6, 6, 600_001, dtype=torch.float64)
    slope = surrogate.derivative(z, theta)
    assert slope.max().item() == pytest.approx(surrogate.lipschitz(theta).item(), rel=1e-6)
    bend = (slope.diff() / (z[1] - z[0])).abs().max().item()
    assert bend == pytest.approx(surrogate.curvature(theta).item(), rel=1e-3)
    rise = surrogate(z, theta).diff() / (z[1] - z[0])
    torch.testing.assert_close(rise, (slope[1:] + slope[:-1]) / 2, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------- data sources


def corners(config: DataConfig) -> Source:
    """Two classes: events at the upper left, or at the lower right."""
    def read(sample):
        events = np.zeros(50, EVENT)
        events["t"], events["x"] = np.arange(50) * 100, 7 * sample.label
        events["y"], events["p"] = events["x"], np.arange(50) % 2
        return events

    parts = [[Sample(f"{part}{i}", i % 2, f"{part}{i}") for i in range(count)] for part, count in (("a", 80), ("b", 8))]
    return Source(read, classes=2, sensor=8, duration=5000, train=parts[0], test=parts[1])


def test_a_data_source_is_one_line_in_the_table(small, monkeypatch, tmp_path):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(SOURCES, "corners", corners)
    assert trainer.data.sources.SOURCES is SOURCES
    done = fit(replace(small, epochs=6, lr=1e-2, average=0, batch_size=8, data=DataConfig("corners", steps=4),
                       network=NetworkConfig("16")))
    assert done.history[-1]["hard_accuracy"] == 1
    with pytest.raises(UsageError, match=r"'corner' is unknown; did you mean 'corners'"):
        fit(replace(small, out=tmp_path / "other", data=DataConfig("corner")))
