"""Segmentation: the loss and the figures by brute force, the pyramid by its definition and by finite differences,
runs that go on bit for bit."""

import csv
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainer.fit
import trainer.run
from hardspike import UsageError
from tests.canvases import config, few
from tests.networks import settled
from trainer import checkpoint, distributed, losses, segmentation
from trainer.data import AugmentConfig, DataConfig, load
from trainer.data.samples import IGNORED
from trainer.evaluate import evaluate
from trainer.fit import fit
from trainer.methods.a2sg import A2sgConfig
from trainer.networks import NetworkConfig, build
from trainer.networks.layouts import LAYOUTS, Layout, Stage
from trainer.neurons.spikes import Surrogate
from trainer.quantise import QuantiseConfig
from trainer.run import is_best


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    few(monkeypatch)
    monkeypatch.setitem(LAYOUTS, "few", Layout((Stage(4, 2, 1), Stage(6, 2, 1), Stage(8, 1, 1, True)), 3, 2, 2))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_a_mean_over_pixels_that_count(smoothing):
    logits = torch.randn(3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    masks = torch.randint(0, 4, (3, 5, 6)).to(torch.uint8)
    masks[torch.rand(3, 5, 6) < 0.3] = IGNORED
    total, count = 0.0, 0
    for b, y, x in (masks != IGNORED).nonzero().tolist():
        logs = logits[b, :, y, x] - logits[b, :, y, x].exp().sum().log()
        total = total - (1 - smoothing) * logs[int(masks[b, y, x])] - smoothing * logs.mean()
        count += 1
    found = losses.classification(logits, masks, smoothing)
    torch.testing.assert_close(found, total / count)
    assert torch.autograd.gradcheck(lambda each: losses.classification(each, masks, smoothing), logits)
    grad, = torch.autograd.grad(found, logits)
    assert not grad.movedim(1, 3)[masks == IGNORED].any()


def test_a_minibatch_without_a_label_costs_nothing_and_class_255_of_recordings_counts():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = losses.classification(logits, torch.full((2, 4, 4), IGNORED))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()
    many = torch.randn(2, 300)
    assert losses.classification(many, torch.tensor([255, 3])) == F.cross_entropy(many, torch.tensor([255, 3]))


def test_intersections_over_unions_are_those_of_sets_of_pixels():
    masks = torch.randint(0, 5, (6, 7, 8)).to(torch.uint8)
    masks[torch.rand(6, 7, 8) < 0.2] = IGNORED
    masks[masks == 3] = 2  # class 3 is not there, and is predicted; class 5 is neither
    predicted = torch.where(torch.rand(6, 7, 8) < 0.6, masks.long().clamp(max=4), torch.randint(0, 5, (6, 7, 8)))
    logits = F.one_hot(predicted, 6).movedim(3, 1).float()
    found = segmentation.evaluated([(logits[:4], masks[:4]), (logits[4:], masks[4:])])
    pixels = [(int(p), int(m)) for p, m in zip(predicted.flatten(), masks.flatten(), strict=True) if m != IGNORED]
    ious = []
    for c in range(6):
        both, either = (sum(map(test, pixels)) for test in (lambda pair, c=c: pair == (c, c),
                                                            lambda pair, c=c: c in pair))
        ious.append(both / either if either else math.nan)
    assert found.ious == pytest.approx(ious, nan_ok=True) and ious[3] == 0 and math.isnan(ious[5])
    assert found.miou == pytest.approx(sum(ious[:5]) / 5)
    assert found.accuracy == pytest.approx(sum(p == m for p, m in pixels) / len(pixels))
    assert found.hits.tolist() == ((predicted == masks) & (masks != IGNORED)).sum((1, 2)).tolist()
    assert found.loss == pytest.approx(losses.classification(logits.double(), masks).item())
    assert set(found.row("hard")) == {"hard_miou", *(f"hard_iou_{c}" for c in range(5))}


def network(layers="4c3s2-6c3s2", shape=(1, 13, 10), **options):
    torch.manual_seed(1)
    made = build(NetworkConfig(layers=layers, **{"pyramid": 4, "beta": 0.5, "detach_reset": layers == "few",
                                                 **options}), shape, 3)
    return settled(made, lambda: 2 * torch.rand(2, 4, *shape), gain=2, times=6)


def near(x, size):
    """Nearest neighbour, pixel by pixel."""
    rows, columns = ([i * given // wanted for i in range(wanted)]
                     for given, wanted in zip(x.shape[-2:], size, strict=True))
    return x[..., rows, :][..., columns]


@pytest.mark.parametrize("layers", ["4c3s2-6c3s2", "4c3s2-4c3-ap2-6c3", "4c3-6rs2", "few"])
def test_the_pyramid_is_what_its_definition_says(layers):
    made, frames = network(layers), 2 * torch.rand(3, 2, 1, 13, 10)
    record = {}
    found = made(frames, record)
    parts = made.layers

    def linear(index, x):
        x = parts[f"norm{index}"](parts[f"conv{index}"](x.flatten(0, 1)))
        return x.unflatten(0, (3, 2))

    def neurons(index, x):
        neuron = parts[f"lif{index}"]
        spikes = neuron(x)[0]
        assert torch.equal(spikes, record[f"lif{index}"]) and spikes.any()
        return spikes / getattr(neuron, "norm", 1)

    features = {}
    for name in list(parts)[:list(parts).index("convlateral1") - (layers == "few")]:
        if name[:3] + name[-1:] == "addc" if layers == "few" else name in record:
            x = made_output(made, frames, name)
            features[x.shape[3:]] = x
    features = list(features.values())
    assert len(features) > 1 and all(one.shape[3] > other.shape[3] for one, other in pairwise(features))
    laterals = [linear(f"lateral{i}", neurons(f"lateral{i}", x) if layers == "few" else x)
                for i, x in enumerate(features, 1)]
    merged = laterals[-1]
    outputs = [(len(laterals), merged)]
    for i in range(len(laterals) - 1, 0, -1):
        merged = laterals[i - 1] + near(merged, laterals[i - 1].shape[3:])
        outputs.append((i, merged))
    total = sum(near(linear(f"pyramid{i}", neurons(f"pyramid{i}", x)), features[0].shape[3:]) for i, x in outputs)
    spikes = neurons("head2", linear("head1", neurons("head1", total)))
    wanted = near(parts["readout"](spikes.mean(0)), (13, 10))
    torch.testing.assert_close(found, wanted)
    assert found.shape == (2, 3, 13, 10)


def made_output(made, frames, name):
    """What one layer gives, as it goes on, (T, B, ...)."""
    layer, found = made.layers[name], []
    if isinstance(layer, nn.Identity):  # a sum, which is no call of its own
        return sum(made_output(made, frames, source) for source in made.sums[name])
    handle = layer.register_forward_hook(lambda _, __, out: found.append(out[0] if isinstance(out, tuple) else out))
    made(frames)
    handle.remove()
    return found[0] if found[0].dim() == 5 else found[0].unflatten(0, frames.shape[:2])


@pytest.mark.parametrize("layers", ["4c3s2-6c3s2", "few"])
def test_its_gradient_is_that_of_finite_differences(layers):
    """Smooth and without memory: the reset of I-LIF is detached."""
    made = network(layers, beta=0.0, surrogate=Surrogate(slope=2.0)).double()
    made.set_mode(hard=False)
    frames, masks = torch.rand(2, 2, 1, 13, 10).double(), torch.randint(0, 3, (2, 13, 10))
    masks[0, :4] = IGNORED

    def loss():
        return losses.classification(made(frames), masks)

    weights = {name: weight for name, weight in made.named_parameters() if weight.requires_grad}
    grads = dict(zip(weights, torch.autograd.grad(loss(), list(weights.values())), strict=True))
    for name in [name for name in weights if "lateral" in name or "pyramid" in name or "head" in name
                 or name in ("layers.conv1.weight", "layers.readout.weight", "layers.readout.bias")]:
        direction = torch.randn_like(weights[name])
        with torch.no_grad():
            ends = []
            for step in (1e-6, -2e-6):
                weights[name].add_(direction, alpha=step)
                ends.append(loss().item())
            weights[name].add_(direction, alpha=1e-6)
        assert (grads[name] * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-8)


def test_published_sizes_give_the_features_of_the_papers_head():
    """E-SpikeFormer of 10 M parameters: 24, 48, 96 and 240 channels at 1/2 to 1/16 of the picture (A2SG table 5: 11.0 M
    with its head)."""
    made = build(NetworkConfig(layers="espikeformer_10m", beta=0.0, pyramid=128), (3, 64, 64), 150)
    assert [made.layers[f"convlateral{i}"].in_channels for i in range(1, 5)] == [24, 48, 96, 240]
    assert [made.layers[f"wide{i}"].size for i in range(2, 5)] == [(32, 32)] * 3
    assert round(sum(p.numel() for p in made.parameters()) / 1e6, 1) == 10.6


@pytest.mark.parametrize("options", [{}, {"average": 0.0, "method": "sast"}, {"a2sg": A2sgConfig(window="box")}])
def test_an_interrupted_run_reaches_the_same_weights_and_figures(options, tmp_path, monkeypatch):
    if "a2sg" in options:
        options = {**options, "network": NetworkConfig(layers="few", beta=0.0, pyramid=4)}
    whole = fit(config(tmp_path / "whole", epochs=3, **options))
    broken = config(tmp_path / "broken", epochs=3, **options)
    epoch = trainer.run.Run.epoch
    monkeypatch.setattr(trainer.run.Run, "epoch", lambda run, number: epoch(run, number) if number < 2 else _stop())
    with pytest.raises(KeyboardInterrupt):
        fit(broken)
    monkeypatch.setattr(trainer.run.Run, "epoch", epoch)
    resumed = fit(broken, resume=True)
    one, other = (checkpoint.load(run.folder / "last.pt").network.state_dict() for run in (whole, resumed))
    assert all(torch.equal(one[key], other[key]) for key in one)
    drop = ("train_seconds", "peak_memory")
    # as text: an empty window's metric is no number, which equals nothing
    one, other = (str([{key: value for key, value in row.items() if key not in drop} for row in run.history])
                  for run in (whole, resumed))
    assert one == other


def _stop():
    raise KeyboardInterrupt


def test_the_log_has_every_figure_and_the_best_is_that_of_the_mean(tmp_path):
    found = fit(config(tmp_path / "run", epochs=3))
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    last, data = found.history[-1], load(config(tmp_path).data)
    stored = checkpoint.load(tmp_path / "run" / "last.pt").network
    here = evaluate(stored, data, data.validation, hard=True)
    assert last["hard_miou"] == here.miou and float(rows[-1]["hard_iou_10"]) == here.ious[10]
    assert last["hard_accuracy"] == here.accuracy and last["hard_loss"] == here.loss
    best = max(found.history, key=lambda row: (row["hard_miou"], row["epoch"]))
    assert checkpoint.load(found.best).epoch == best["epoch"]
    history = [{"hard_miou": value, "surrogate_miou": 0.5, "hard_accuracy": 0.9} for value in (0.3, 0.31, 0.305)]
    assert [is_best(history[:n], 8) for n in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(("options", "message"), [
    ({"network": NetworkConfig(layers="4c3")}, "has a label for every pixel; give --network.pyramid"),
    ({"data": DataConfig("images", encoding="count", steps=1)}, "one label a recording; leave it out"),
    ({"augment": AugmentConfig(drop=0, mixup=0.2)}, "augment.mixup 0.2: shares one label"),
    ({"augment": AugmentConfig(drop=0, cutmix=1.0)}, "augment.cutmix 1: shares one label"),
    ({"diagnose": 1}, "diagnose 1: looks at losses")])
def test_what_is_of_one_label_a_recording_is_refused(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        fit(config(tmp_path / "run", **options))
    assert not (tmp_path / "run" / "last.pt").exists()


def test_several_processes_are_refused(tmp_path, monkeypatch):
    asked = config(tmp_path / "run")
    data = load(asked.data)
    trainer.fit.check_masks(asked, data)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    with pytest.raises(UsageError, match="train on canvas in one process"):
        trainer.fit.check_masks(asked, data)


@pytest.mark.parametrize(("options", "message"), [
    ({"layers": "8c3-32"}, "'32' leaves no picture"), ({"layers": "8rec"}, "'8rec' leaves no picture"),
    ({"layers": "ap2"}, "there is no convolution"), ({"readout": "spikes"}, "its readout is linear"),
    ({"pyramid": -1}, "channels go up to"), ({"pyramid": 1 << 21}, "channels go up to")])
def test_networks_that_give_no_picture_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        NetworkConfig(**{"layers": "8c3-16c3s2", "pyramid": 4, **options})


def test_a_pyramid_is_not_trained_in_integers(tmp_path):
    with pytest.raises(UsageError, match="a pyramid is not trained in integers"):
        config(tmp_path, data=DataConfig("canvas", steps=2), method="hard", quantise=QuantiseConfig(bits=8))
