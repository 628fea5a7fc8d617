"""CutMix, Mixup and RandAugment: shares of labels are those of the frames, and draws are the generator's alone."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from hardspike import UsageError
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.data.augment import augment
from trainer.data.config import AugmentConfig, RandAugmentConfig
from trainer.data.mix import mix
from trainer.data.randaugment import OPERATIONS, randaugment
from trainer.quantise import QuantiseConfig

OFF = AugmentConfig(0, 0, 0, 0, 0, 0, 0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def minibatch(batch=12, steps=3):
    """Every recording is of its own class and has its number in every pixel."""
    frames = torch.arange(1, batch + 1).float().view(-1, 1, 1, 1, 1).expand(-1, steps, 2, 9, 7)
    return frames, torch.arange(batch)


@pytest.mark.parametrize(("options", "alpha"), [(dict(cutmix=1.0), 1.0), (dict(mixup=0.8), 0.8),
                                                (dict(cutmix=0.3, mixup=5.0), None)])
def test_a_label_has_the_shares_that_its_frames_have(options, alpha):
    frames, labels = minibatch()
    seen, kinds = [], set()
    for seed in range(60):
        mixed, shares = mix(frames, labels, 12, seeded(seed), AugmentConfig(**options))
        again = mix(frames, labels, 12, seeded(seed), AugmentConfig(**options))
        assert torch.equal(mixed, again[0]) and torch.equal(shares, again[1])
        assert torch.allclose(shares.sum(1), torch.ones(12))
        # of numbers, too: the mean pixel is the mean of the classes' numbers by their shares
        assert torch.allclose(mixed.mean((1, 2, 3, 4)), shares @ torch.arange(1, 13).float(), atol=1e-4)
        cut = all(set(recording.unique().tolist()) <= set(range(1, 13)) for recording in mixed)
        kinds.add(cut)
        assert mixed.shape == frames.shape and (mixed == mixed[:, :1, :1]).all()
        # a recording that meets itself keeps all of its share
        seen += [share.max().item() for share in shares if (share > 0).sum() == 2]
    assert kinds == ({True} if "mixup" not in options else {False} if "cutmix" not in options else {True, False})
    assert torch.equal(frames, minibatch()[0])
    if alpha == 1.0:  # the share is uniform, and so its larger part lies between 1/2 and 1 (rectangles are cut off)
        assert 0.7 < np.mean(seen) < 0.9


def test_mixing_needs_no_partner():
    frames, labels = minibatch(1)
    mixed, shares = mix(frames, labels, 12, seeded(), AugmentConfig(mixup=1.0))
    assert torch.allclose(mixed, frames) and shares[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_changes_each_picture_by_its_own_draws(channels):
    pictures = torch.randint(0, 256, (40, channels, 8, 6), generator=seeded(1)).float()
    config = RandAugmentConfig(2, 9, 0.5, 0.5)
    found = randaugment(pictures, seeded(), config)
    assert found.shape == pictures.shape and found.dtype == pictures.dtype and found.min() >= 0 and found.max() <= 255
    same = (found == pictures).flatten(1).all(1)
    assert 5 < same.sum() < 25  # a quarter is not touched, and some operations change nothing
    part = slice(10, 17)  # of the same minibatch in another process
    assert torch.equal(randaugment(pictures[part], seeded(), config, part, 40), found[part])
    assert torch.equal(randaugment(pictures, seeded(), RandAugmentConfig(2, 9, 0.5, 0.0)), pictures)
    frames = pictures[:, None].expand(-1, 3, -1, -1, -1)
    whole = augment(frames, seeded(), AugmentConfig(0, 0, 0, 0, 0, 0, 0, randaugment=config))
    assert torch.equal(whole[:, 0], whole[:, 2]) and not torch.equal(whole[:, 0], pictures)


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_strength_changes_nothing_and_the_largest_is_the_papers(name):
    """At strength 0; but for what has none: spreading and equalising intensities."""
    array = (np.arange(20 * 16) % 100 + 50).astype(np.uint8).reshape(20, 16)
    picture = Image.fromarray(array)
    still = np.asarray(OPERATIONS[name](picture, 0.0))
    assert still.shape == array.shape and (name in ("autocontrast", "equalize") or np.array_equal(still, array))
    strong = np.asarray(OPERATIONS[name](picture, 1.0)).astype(int)
    known = {"solarize": 255 - array, "posterize": array & 0xf0, "rotate": np.asarray(picture.rotate(30)),
             "translate x": np.pad(array[:, 7:], ((0, 0), (0, 7))), "translate y": np.pad(array[9:], ((0, 9), (0, 0))),
             "brightness": (array.astype(float) * 1.9).clip(0, 255).astype(int), "identity": array, "color": array}
    if name in known:
        assert np.abs(strong - known[name]).max() <= 1
    else:
        assert not np.array_equal(strong, array)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: AugmentConfig(randaugment=RandAugmentConfig(magnitude=11)), "magnitude 11: must lie between 0 and 10"),
    (lambda: RandAugmentConfig(rate=math.nan), "rate nan"),
    (lambda: FitConfig(augment=AugmentConfig(cutmix=-1)), "cutmix -1: must be at least 0"),
    (lambda: FitConfig(augment=AugmentConfig(randaugment=RandAugmentConfig(1))), "takes pictures as they are; give"),
    (lambda: FitConfig(augment=AugmentConfig(mixup=1), quantise=QuantiseConfig(4)), "mixup 1: gives fractions"),
    (lambda: randaugment(torch.ones(2, 2, 4, 4), seeded(), RandAugmentConfig(1)), "these have 2; leave it out"),
    (lambda: FitConfig(lr_end=1.0), "lr_end 1.0: must lie between 0 and lr"),
    (lambda: FitConfig(warmup=19), "warmup 19: must lie between 0 and the run's 18 epochs")])
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_the_first_layer_of_a_picture_runs_once_and_gives_the_same(monkeypatch):
    from trainer.networks import NetworkConfig, build
    from trainer.networks import network as module

    torch.manual_seed(0)
    network = build(NetworkConfig("6c3-ap2-8c3-16", batch_norm=True), (3, 8, 8), 4)
    network.set_mode(True)
    frame, target = torch.rand(1, 5, 3, 8, 8), torch.randn(5, 4)
    seen, found, stored = [], [], {key: value.clone() for key, value in network.state_dict().items()}
    plain = module.linear
    monkeypatch.setattr(module, "linear", lambda layer, x: seen.append(len(x)) or plain(layer, x))
    for frames in (frame.expand(4, -1, -1, -1, -1), frame.repeat(4, 1, 1, 1, 1)):
        network.load_state_dict(stored)
        record: dict = {}
        gradients = torch.autograd.grad((network(frames, record) * target).sum(), list(network.parameters()))
        found.append([*record.values(), *network.state_dict().values(), *gradients])
    half = len(seen) // 2
    assert seen[0] == 5 and seen[1:half] == seen[half + 1:] and set(seen[1:half - 1]) == {20} and seen[half] == 20
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    assert found[0][0].sum() > 20


def test_data_says_whether_frames_are_alike():
    from trainer.data import load

    for encoding, still in (("count", True), ("binary", False)):
        data = load(DataConfig("images", steps=3, encoding=encoding, count_max=255))
        frames = data.test.frames
        assert data.still == still == bool((frames == frames[:, :1]).all())
        assert torch.equal(data.repeated(data.to_input(frames[:, :1])), data.to_input(frames)) == still
