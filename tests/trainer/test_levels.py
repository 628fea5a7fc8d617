"""I-LIF: spikes and gradient against their definition, A2SG's search over thresholds, E-SpikeFormer's layers."""

from dataclasses import replace

import pytest
import torch

import trainer.data
import trainer.fit
import trainer.run
from hardspike import UsageError
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import DataConfig, Split
from trainer.fit import fit
from trainer.layers.attention import Attention
from trainer.methods.a2sg import A2sgConfig
from trainer.methods.widths import naive_metric
from trainer.networks import NetworkConfig, build
from trainer.networks.layouts import LAYOUTS
from trainer.neurons.levels import LevelLeaky
from trainer.neurons.spikes import Surrogate
from trainer.neurons.windows import WINDOWS, Windows
from trainer.quantise import QuantiseConfig


def neuron(beta=0.25, threshold=1.0, levels=4, hard=True, **options):
    made = LevelLeaky(beta, threshold, Surrogate(**options), levels, levels).double()
    made.hard = hard
    return made


class Rounded(torch.autograd.Function):
    """How many thresholds lie below, and a gradient that the test hands over."""

    @staticmethod
    def forward(ctx, u, theta, levels, slope):
        ctx.save_for_backward(slope)
        return sum((u > (i + 0.5) * theta).to(u.dtype) for i in range(levels))

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None, None


def by_definition(current, beta, theta, levels, slope):
    """Spikes and membranes, one step after the other."""
    spikes, membranes = [], []
    for t, drive in enumerate(current):
        u = drive if t == 0 else beta * (membranes[-1] - theta * spikes[-1].detach()) + drive
        membranes.append(u)
        spikes.append(Rounded.apply(u, theta, levels, slope(u.detach())))
    return torch.stack(spikes), torch.stack(membranes)


@pytest.mark.parametrize(("beta", "theta", "levels"), [(0.0, 1.0, 4), (0.25, 1.0, 4), (0.625, 0.75, 3), (0.25, 2.0, 1)])
def test_spikes_are_rounded_membranes_that_leak_after_their_reset(beta, theta, levels):
    current = 3 * theta * torch.randn(5, 6, 7).double()
    spikes, membrane = neuron(beta, theta, levels)(current)
    wanted, membranes = by_definition(current, beta, theta, levels, torch.zeros_like)
    assert torch.equal(spikes, wanted)
    torch.testing.assert_close(membrane, membranes)
    away = ((membrane / theta - 0.5) % 1 - 0.5).abs() < 0.49  # from a tie
    assert torch.equal(spikes[away], (membrane / theta).round().clamp(0, levels)[away])
    assert set(spikes.unique().tolist()) == set(range(levels + 1))


@pytest.mark.parametrize("name", [*WINDOWS, None])
@pytest.mark.parametrize("beta", [0.0, 0.25])
def test_the_gradient_is_that_of_a_window_a_threshold(name, beta):
    layer, widths = neuron(beta, 0.8, 3), torch.tensor([0.3, 0.5, 0.9]).double()
    if name:
        layer.windows = Windows(name, widths, 0.6)
    current = torch.randn(4, 5, 6).double().requires_grad_()
    weights = torch.randn(2, 4, 5, 6).double()

    def slope(u):
        found = 0
        for i, width in enumerate(widths.tolist()):
            z = u - (i + 0.5) * 0.8
            found = found + (WINDOWS[name](z, width, 0.6) if name else layer.surrogate.derivative(z, z))
        return found

    found, = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, layer(current), strict=True)), current)
    naive = by_definition(current, beta, 0.8, 3, slope)
    wanted, = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, naive, strict=True)), current)
    torch.testing.assert_close(found, wanted)


def test_box_of_half_a_threshold_is_the_straight_through_gradient():
    layer = neuron(0.0)
    layer.windows = Windows("box", torch.full((4,), 0.5).double())
    current = 4 * torch.randn(1, 50, 40).double()
    current.requires_grad_()
    layer(current)[0].sum().backward()
    assert torch.equal(current.grad, ((current > 0) & (current < 4)).double())


def test_the_smooth_neurons_gradient_is_its_derivative():
    layer = neuron(0.0, hard=False, slope=1.3)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], torch.randn(1, 3, 4).double().requires_grad_())


def test_the_search_goes_from_the_highest_threshold_down():
    """Each width is the best on a grid by the metric's definition, with what was chosen above it."""
    layer, candidates = neuron(0.25, levels=3), torch.linspace(0.2, 1, 5).double()
    seen = []

    def choose(i, z, q, later, rest):
        values = naive_metric("box", z, q, later, candidates, 0.5)
        assert rest is None
        seen.append((i, z, q, later))
        return candidates[values.argmin() if later is None else values.argmax()].item()

    layer.windows = Windows("box", torch.full((3,), 0.5).double(), choose=choose)
    current = 2 * torch.randn(2, 6, 30).double()
    current.requires_grad_()
    spikes, membrane = layer(current)
    g = torch.randn_like(spikes)
    spikes.backward(g)
    assert [i for i, *_ in seen] == [2, 1, 0] and layer.windows.choose is None
    later = None
    for i, z, q, given in seen:
        torch.testing.assert_close(z, (membrane - (i + 0.5)).transpose(0, 1))
        assert torch.equal(q, g.transpose(0, 1))
        assert (given is None) == (later is None) and (later is None or torch.equal(given, later))
        later = q * WINDOWS["box"](z, layer.windows.widths[i].item(), 0.5)
    assert len(layer.windows.widths.unique()) > 1


@pytest.mark.parametrize(("layout", "parameters"), [
    ("espikeformer_5m", 5_099_416), ("espikeformer_10m", 10_014_352), ("espikeformer_19m", 18_975_384)])
def test_the_layouts_have_the_papers_parameters(layout, parameters):
    """5.1, 10 and 19 M, with ImageNet's pictures and classes; 14 x 14 tokens."""
    network = build(NetworkConfig(layers=layout, beta=0), (3, 224, 224), 1000)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.layers["pool"].kernel_size == (14, 14)


def test_attention_is_the_product_of_its_definition():
    q, k = torch.rand(2, 3, 6, 2, 5).double()
    v = torch.rand(3, 12, 2, 5).double()
    wanted = torch.zeros_like(v)
    for h in range(3):
        a, b, c = (x.flatten(2)[:, h * x.shape[1] // 3:(h + 1) * x.shape[1] // 3].transpose(1, 2) for x in (q, k, v))
        part = (a @ b.transpose(1, 2)) @ c * 2 / (6 / 3) ** 0.5
        wanted[:, 4 * h:4 * h + 4] = part.transpose(1, 2).reshape(3, 4, 2, 5)
    torch.testing.assert_close(Attention(6, 3)(q, k, v), wanted)


def test_layers_pass_on_spikes_by_d_and_shortcuts_add_currents():
    network = build(NetworkConfig(layers="espikeformer_small", beta=0, levels=3), (2, 8, 8), 10).double()
    network.set_mode(True)
    record, membranes, given = {}, {}, {}
    for name in ("conv2_1a", "readout", "add1_1a", "lif1_1d", "attention4_1", "lif4_1o"):
        network.layers[name].register_forward_hook(lambda _, x, y, name=name: given.update({name: (x, y)}))
    network((torch.rand(1, 4, 2, 8, 8) < 0.3).double(), record, membranes)
    assert set(record["lif2_1a"].unique().tolist()) <= {0, 1, 2, 3} and record["lif2_1a"].any()
    assert torch.equal(given["conv2_1a"][0][0], record["lif2_1a"][0] / 3)
    assert torch.equal(given["readout"][0][0], record["lifhead"].mean(0))
    assert torch.equal(given["add1_1a"][1], membranes["lif1_1d"][0])
    assert torch.equal(given["attention4_1"][1], membranes["lif4_1o"][0])


@pytest.mark.parametrize(("options", "message"), [
    ({"beta": 0.25}, "detach_reset true, or beta 0"),
    ({"beta": 0, "reset": "zero"}, "reset zero is for other layers"),
    ({"beta": 0, "learn_beta": True}, "learn_beta false only"),
    ({"beta": 0, "batch_norm": False}, "batch_norm true only"),
    ({"beta": 0, "levels": 0}, "levels 0: 1 to 64"),
])
def test_what_the_layouts_do_not_have_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        NetworkConfig(layers="espikeformer_tiny", **options)


@pytest.mark.parametrize(("options", "message"), [
    ({"rmp": 0.1}, "rmp 0.1: is of neurons with one threshold"),
    ({"diagnose": 1}, "diagnose 1: is of neurons with one threshold"),
    ({"method": "a2sg", "a2sg": {"metric": "membrane"}}, "windows by thresholds; take local")])
def test_what_trains_neurons_of_one_threshold_only_is_refused(options, message):
    from trainer.config import from_dict

    with pytest.raises(Exception, match=message):
        from_dict({"network": {"layers": "espikeformer_tiny", "beta": 0.0}, **options}, "file")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_that_are_too_small_or_few_parameters_are_refused(layout):
    with pytest.raises(UsageError, match="where 100 are there"):
        build(NetworkConfig(layers=layout, beta=0), (2, 34, 34), 10, most=100)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "bits", "stops"), [(1, None, 1), (2, None, 1), (1, 8, 1), (2, 4, 2)])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, monkeypatch, steps, bits, stops):
    """Also where it stops before or among its epochs in a chip's integers."""
    def load(config):
        data = trainer.data.load(config)
        few = [Split(part.frames[:n], part.labels[:n], part.ids[:n])
               for part, n in ((data.train, 64), (data.validation, 16))]
        return replace(data, train=few[0], validation=few[1])

    monkeypatch.setattr(trainer.fit, "load", load)
    config = FitConfig(out=tmp_path / "whole", method="a2sg", epochs=1 + stops, batch_size=32, threads=1, average=0.5,
                       data=DataConfig(name="images", steps=steps), a2sg=A2sgConfig(recordings=8),
                       network=NetworkConfig(layers="espikeformer_small", beta=0.0 if bits else 0.25, detach_reset=True,
                                             levels=3), quantise=QuantiseConfig(bits=bits, epochs=stops))
    whole = fit(config)
    broken = replace(config, out=tmp_path / "broken")
    saved = trainer.run.Run.save

    def stop(run, row):
        saved(run, row)
        if row["epoch"] == stops:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer.run.Run, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(broken)
    monkeypatch.setattr(trainer.run.Run, "save", saved)
    resumed = fit(broken, resume=True)
    one, two = (checkpoint.load(run.folder / "last.pt") for run in (whole, resumed))
    assert hasattr(one.network, "integers") == bool(bits)
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, two.network.state_dict()[name]), name
    widths = one.training["method"]["widths"]
    assert {tuple(each.shape) for each in widths.values()} == {(3,)}
    assert all(torch.equal(each, two.training["method"]["widths"][name]) for name, each in widths.items())
    assert any(each.unique().numel() > 1 for each in widths.values())
