"""A2SG: its backward windows against autograd of their definition; when and over what the widths are searched."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

import trainer.fit
import trainer.run
from hardspike import UsageError
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import DataConfig, Split
from trainer.fit import fit
from trainer.methods import a2sg, plain, widths
from trainer.methods.a2sg import A2sgConfig
from trainer.methods.widths import naive_metric
from trainer.networks import NetworkConfig
from trainer.neurons.leaky import Leaky
from trainer.neurons.spikes import Surrogate
from trainer.neurons.windows import WINDOWS, Windows

STEPS = 7


def window(name, z, b, h):
    """Eqs. A6, A7 and 10 as they stand in the paper; arc as the derivative of arctan(pi z / 2b)/pi."""
    return {"box": (z.abs() < b) / (2 * b), "tri": (b - z.abs()).clamp(min=0) / b**2,
            "asy": (z / (2 * b) + h) * (z.abs() <= b), "ramp": (z + b) / (2 * b**2) * (z.abs() <= b),
            "arc": 1 / (2 * b * (1 + (math.pi * z / (2 * b))**2))}[name]


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, derivative):
        ctx.save_for_backward(derivative)
        return (z > 0).to(z.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None


def naive_scan(current, beta, threshold, windows, reset, detach):
    """Membranes and spikes of each step, by plain autograd."""
    membranes, spikes = [], []
    for t, step in enumerate(current):
        u = step
        if t:
            before = spikes[-1].detach() if detach else spikes[-1]
            if reset == "zero":
                u = beta * (1 - before) * membranes[-1] + step
            elif reset == "subtract_leaky":
                u = beta * (membranes[-1] - threshold * before) + step
            else:
                u = beta * membranes[-1] + step - (threshold * before if reset == "subtract" else 0)
        z = u - threshold
        membranes.append(u)
        spikes.append(Spike.apply(z, window(windows.name, z.detach(), windows.widths[t], windows.height)))
        spikes[-1].retain_grad()
        u.retain_grad()
    return membranes, spikes


@pytest.fixture
def layer():
    """Two layers in float64 with a leak and a threshold a neuron: (leaves, scan -> loss)."""
    def make(**options):
        neuron = Leaky(torch.rand(9).double() * 0.5 + 0.4, torch.rand(9).double() + 0.4, hard=True, learn_beta=True,
                       learn_threshold=True, **options)
        later = Leaky(torch.tensor(0.7).double(), torch.tensor(0.6).double(), hard=True, **options)
        weight = torch.randn(6, 9).double().requires_grad_()
        current = torch.randn(STEPS, 4, 9).double().requires_grad_()
        target = torch.randn(STEPS, 4, 6).double()
        return neuron, later, [current, weight, *neuron.parameters()], target
    return make


@pytest.mark.parametrize(("name", "reset", "detach"), list(itertools.product(
    WINDOWS, ["subtract", "zero", "none", "subtract_leaky"], [False, True])))
def test_backward_windows_equal_autograd_of_their_definition(layer, name, reset, detach):
    first, second, leaves, target = layer(reset_mechanism=reset, detach_reset=detach)
    for neuron in (first, second):
        neuron.windows = Windows(name, torch.rand(STEPS).double() + 0.2, height=0.7)
    current, weight = leaves[:2]
    membrane, spikes = first(current)[::-1]
    ours = (second(spikes @ weight.T)[0] * target).sum() + (membrane * spikes.detach()).sum()

    options = reset, detach
    u, s = naive_scan(current, first.beta, first.threshold, first.windows, *options)
    _, out = naive_scan(torch.stack(s) @ weight.T, second.beta, second.threshold, second.windows, *options)
    naive = (torch.stack(out) * target).sum() + (torch.stack(u) * torch.stack(s).detach()).sum()
    assert spikes.sum() > 20 and ours.item() == pytest.approx(naive.item(), rel=1e-12)
    for one, two in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(naive, leaves), strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("reset", "detach"), [("subtract", False), ("zero", False), ("subtract_leaky", False),
                                               ("none", False), ("zero", True), ("subtract", True)])
@pytest.mark.parametrize("whole", [False, True])
def test_the_search_sees_the_whole_gradient_and_the_later_one_at_its_new_width(layer, reset, detach, whole):
    """With `whole`, q*f + rest is dL/du as autograd has it, at whatever width (A2SG eq. A4)."""
    neuron, _, (current, *_), _ = layer(reset_mechanism=reset, detach_reset=detach)
    target, seen = torch.randn(STEPS, 4, 9).double(), {}
    new = torch.rand(STEPS).double() + 0.2

    def choose(t, z, q, later, rest):
        seen[t] = z.clone(), q.clone(), later if later is None else later.clone(), rest
        return new[t].item()

    neuron.windows = Windows("asy", torch.full((STEPS,), 0.5).double(), 0.6, choose, whole)
    (neuron(current)[0] * target).sum().backward()
    assert list(seen) == list(range(STEPS))[::-1] and torch.equal(neuron.windows.widths, new)
    assert neuron.windows.choose is None  # one backward pass only

    u, s = naive_scan(current, neuron.beta, neuron.threshold, neuron.windows, reset, detach)
    sum((step * aim).sum() for step, aim in zip(s, target, strict=True)).backward()
    for t, (z, q, later, rest) in seen.items():
        torch.testing.assert_close(z, u[t].detach() - neuron.threshold.detach())
        torch.testing.assert_close(q, s[t].grad, rtol=1e-12, atol=1e-12)
        if t == STEPS - 1:
            assert later is None and rest is None
        elif whole:
            torch.testing.assert_close(later, u[t + 1].grad, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(q * window("asy", z, new[t], 0.6) + rest, u[t].grad, rtol=1e-12, atol=1e-12)
        else:
            after, after_q, *_ = seen[t + 1]
            assert rest is None
            torch.testing.assert_close(later, after_q * window("asy", after, new[t + 1], 0.6))


# ------------------------------------------------------------------------------------------------ method


class Layers(torch.nn.ModuleDict):
    """Two spiking layers behind the interface of a network."""

    def __init__(self):
        super().__init__({"a": Leaky(0.8, hard=True), "b": Leaky(0.8, hard=True)})
        self.weight = torch.nn.Parameter(torch.randn(30, 30) / 5)

    def neurons(self):
        return dict(self.items())

    def forward(self, x):
        return self["b"](self["a"](x @ self.weight)[0] @ self.weight)[0]


@pytest.mark.parametrize(("adapt", "search", "name", "reading"), [*itertools.product(
    ["none", "spatial", "temporal", "both"], ["exact", "bayesian"], ["box", "asy"], ["local", "membrane"]),
    ("both", "exact", "arc", "local"), ("both", "exact", "ramp", "membrane")])
def test_each_ablation_searches_its_own_steps(adapt, search, name, reading):
    network, batch = Layers(), torch.randn(2, STEPS, 8, 30)
    options = A2sgConfig(window=name, adapt=adapt, search=search, observations=20, evaluations=30, recordings=5,
                          metric=reading)
    state, seen = a2sg.A2sgState(), {}
    a2sg.begin(state, 2)

    def loss(batch):
        neuron = network["a"]
        choose = neuron.windows.choose

        def spy(t, z, q, later, rest):
            seen[t] = z[:5].clone(), q[:5].clone(), *(None if x is None else x[:5].clone() for x in (later, rest))
            return choose(t, z, q, later, rest)

        neuron.windows.choose = spy
        return (network(batch[0]) * batch[1]).sum()

    a2sg.gradient(network, loss, batch, None, FitConfig(a2sg=options), state)
    changed = state.widths["a"] != options.width
    assert changed[-1] == (adapt in ("spatial", "both")) and changed[:-1].any() == (adapt in ("temporal", "both"))
    measured = state.measured["a"]
    assert measured["widths"] == state.widths["a"].tolist()
    metrics = [*measured["tgc"], measured["sgv"]]  # those of the chosen widths
    for t, (z, q, later, rest) in seen.items():
        assert (rest is not None) == (reading == "membrane" and t < STEPS - 1)
        value = naive_metric(name, z, q, later, state.widths["a"][t:t + 1], options.height, rest).item()
        assert metrics[t] == pytest.approx(value, rel=1e-9)


@pytest.fixture
def small(tmp_path, monkeypatch) -> FitConfig:
    """A run on 256 recordings."""
    def load(config):
        data = trainer.data.load(config)
        return replace(data, train=Split(data.train.frames[:256], data.train.labels[:256], data.train.ids[:256]))

    monkeypatch.setattr(trainer.fit, "load", load)
    return FitConfig(out=tmp_path / "run", method="a2sg", epochs=3, batch_size=32, threads=1, data=DataConfig(steps=4),
                     network=NetworkConfig(layers="4c5s4-16", batch_norm=True))


@pytest.mark.parametrize(("every", "epochs"), [(1, {2, 3}), (2, {3})])
def test_widths_are_searched_on_the_first_minibatch_of_later_epochs_only(small, monkeypatch, every, epochs):
    searched, now, steps = [], {}, []

    def spy(*args):
        searched.append((now["epoch"], now["batch"]))
        return 0.77, 0.5

    def step(network, loss, batch, draw, config, state):
        now.update(epoch=state.epoch, batch=state.batch)
        steps.append((state.epoch, state.batch))
        return one(network, loss, batch, draw, config, state)

    one = plain.gradient
    monkeypatch.setattr(widths, "grid_search", spy)
    monkeypatch.setattr(plain, "gradient", step)
    history = fit(replace(small, a2sg=A2sgConfig(every=every))).history
    assert len(steps) == 3 * 256 // 32
    assert searched == [(epoch, 0) for epoch in sorted(epochs) for _ in range(2 * 4)]  # layers times steps
    assert [row["width"] for row in history] == pytest.approx([0.5, 0.77 if 2 in epochs else 0.5, 0.77])


@pytest.mark.parametrize("options", [A2sgConfig(), A2sgConfig(search="bayesian", observations=10, evaluations=10),
                                     A2sgConfig(sam=True, window="box")])
def test_a_resumed_run_has_the_same_widths_and_weights_and_diagnostics_change_neither(small, tmp_path, options,
                                                                                       monkeypatch):
    whole = fit(replace(small, a2sg=options))
    broken = replace(small, a2sg=options, out=tmp_path / "broken", diagnose=1)
    epoch = trainer.run.Run.epoch
    with monkeypatch.context() as patch:
        patch.setattr(trainer.run.Run, "epoch", lambda run, number: epoch(run, number) if number < 3 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(broken)
    resumed = fit(broken, resume=True)
    one, two = (checkpoint.load(run.folder / "last.pt") for run in (whole, resumed))
    for key, value in one.training["network"].items():
        assert torch.equal(value, two.training["network"][key])
    for name, found in one.training["method"]["widths"].items():
        assert torch.equal(found, two.training["method"]["widths"][name])
        assert found.min() >= options.width_min and found.max() <= options.width_max and (found != 0.5).any()
    for before, after in zip(whole.history, resumed.history, strict=True):
        for name, values in before["layers"].items():
            assert all(str(after["layers"][name][key]) == str(value) for key, value in values.items())
    assert "fisher" in resumed.history[-1]["layers"]["readout"]
    assert one.history[-1]["train_loss"] < 0.97 * one.history[0]["train_loss"]


@pytest.mark.parametrize("options", [
    dict(network=NetworkConfig("4c5s4-8r-16", learn_beta=True, batch_norm=True, reset="zero")),
    dict(network=NetworkConfig("4c5s4-16", detach_reset=True, surrogate=Surrogate(rest_at_zero=True)), rmp=0.1),
    dict(network=NetworkConfig("4c5s4-8r-16", beta=0.5, plif=True, reset="subtract_leaky"),
         a2sg=A2sgConfig(metric="membrane"), rmp=0.1),
    dict(network=NetworkConfig("4c5s4-16", readout="spikes"), a2sg=A2sgConfig(window="arc", sam=True), rmp=0.1)])
def test_composes_with_residual_blocks_learned_leaks_resets_losses_and_sam(small, options):
    done = fit(replace(small, **options))
    assert math.isfinite(done.history[-1]["train_loss"]) and done.history[-1]["width"] != 0.5
    network = checkpoint.load(done.best).network
    if options["network"].learn_beta or options["network"].plif:
        leaks = {neuron.beta.item() for neuron in network.neurons().values()}
        assert len(leaks) == 4 and all(0 <= leak <= 1 for leak in leaks)


@pytest.mark.parametrize(("options", "message"), [
    (dict(window="asym"), "did you mean 'asy'"),
    (dict(metric="whole"), "known: local, membrane"),
    (dict(adapt="all"), "known: none"), (dict(height=0.4), "0.5 or more"),
    (dict(width_min=1.0), "width_min < width_max"), (dict(width=float("nan")), "positive and finite"),
    (dict(candidates=1), "2 or more"), (dict(every=0), "1 or more")])
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        A2sgConfig(**options)
