"""Corruptions of the input: statistics as severity says, nothing else changed, each recording with its own draws."""

import pytest
import torch

from eval.robustness.corruptions import CORRUPTIONS, Corruption, corrupt
from hardspike import UsageError

LARGEST = 8
IDS = [f"sample {i}" for i in range(8)]


@pytest.fixture
def counts():
    """(8, 12, 2, 20, 20): most voxels empty, some with several events."""
    return torch.poisson(torch.full((8, 12, 2, 20, 20), 0.2)).to(torch.uint8)


def corrupted(counts, name, severity, seed=0, largest=LARGEST):
    return corrupt(counts, IDS[:len(counts)], name, severity, largest, seed)


def near(found, expected, deviation):
    """Within 4 sigma."""
    assert abs(found - expected) <= 4 * deviation, (found, expected, deviation)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_zero_is_the_identity(name, counts):
    for frames, largest in ((counts, LARGEST), (counts.clamp(max=1), 1)):
        result = corrupted(frames, name, 0.0, largest=largest)
        assert result.dtype == torch.uint8 and torch.equal(result, frames)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_draws_depend_on_seed_severity_and_recording_alone(name, counts):
    before = counts.clone()
    whole = corrupted(counts, name, 0.3)
    assert torch.equal(counts, before) and not torch.equal(whole, counts)
    parts = [corrupt(counts[i:i + 3], IDS[i:i + 3], name, 0.3, LARGEST) for i in (0, 3, 6)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(corrupted(counts, name, 0.3, seed=1), whole)
    same = counts[:1].expand(2, *counts.shape[1:])
    first, second = corrupted(same, name, 0.3)
    assert not torch.equal(first, second)
    binary = corrupted(counts.clamp(max=1), name, 0.5, largest=1)
    assert binary.max() == 1
    if name == "background_noise":
        assert corrupted(torch.zeros_like(counts), name, 1.0).sum() == 0


def test_event_drop_takes_a_share_of_the_voxels(counts):
    result, active = corrupted(counts, "event_drop", 0.2), int((counts > 0).sum())
    near(int((result > 0).sum()), 0.8 * active, (active * 0.16) ** 0.5)
    assert (result[result > 0] == counts[result > 0]).all()
    assert corrupted(counts, "event_drop", 1.0).sum() == 0


def test_time_jitter_moves_events_in_time_alone(counts):
    result = corrupted(counts, "time_jitter", 0.1, largest=255)
    assert torch.equal(result.sum(1, dtype=torch.int32), counts.sum(1, dtype=torch.int32))
    single = torch.zeros(1, 101, 2, 20, 20, dtype=torch.uint8)
    single[:, 50] = 1
    when = corrupted(single, "time_jitter", 0.05).nonzero()[:, 1].double() - 50
    near(when.mean().item(), 0, 5.05 / 800 ** 0.5)
    near(when.std().item(), (5.05**2 + 1 / 12) ** 0.5, 5.05 / (2 * 800) ** 0.5)
    even = torch.full((1, 10, 2, 60, 60), 1, dtype=torch.uint8)
    jittered = corrupted(even, "time_jitter", 0.4, largest=255).sum((0, 2, 3, 4)).double()
    for events in jittered.tolist():  # mirrored at both ends: an even rate stays even
        near(events, 7200, 7200**0.5)
    assert corrupted(even, "time_jitter", 0.4, largest=1).sum() < even.sum()


def test_bin_drop_empties_whole_bins(counts):
    many = counts[:, :, :, :4, :4].repeat(1, 40, 1, 1, 1)
    result = corrupted(many, "bin_drop", 0.25)
    empty, same = (result == 0).all((2, 3, 4)), (result == many).all(4).all(3).all(2)
    assert (empty | same).all()
    near(int(empty.sum()), 0.25 * empty.numel(), (empty.numel() * 0.25 * 0.75) ** 0.5)


def test_background_noise_adds_events_in_proportion_to_those_there(counts):
    added = corrupted(counts, "background_noise", 0.5, largest=255).int() - counts
    events = int(counts.sum())
    assert added.min() == 0
    near(int(added.sum()), 0.5 * events, (0.5 * events) ** 0.5)
    for half in (added[:, :6], added[:, :, 0], added[..., :10]):
        near(int(half.sum()), 0.25 * events, (0.25 * events) ** 0.5)


def test_failed_pixels_are_as_many_as_severity_says(counts):
    full = torch.ones_like(counts)
    dead = (corrupted(full, "dead_pixels", 0.1) == 0).all(2).all(1)
    hot = corrupted(torch.zeros_like(counts), "hot_pixels", 0.1)
    stuck = corrupted(full, "stuck_pixels", 0.1)
    assert (dead.sum((1, 2)) == 40).all() and (corrupted(full, "dead_pixels", 0.1).sum((1, 2, 3, 4)) == 360 * 24).all()
    assert (hot[:, :, 1].all(1).sum((1, 2)) == 40).all() and hot.sum() == 8 * 12 * 40
    assert (hot.sum(1, dtype=torch.int32)[:, 1].unique() == torch.tensor([0, 12])).all()
    assert ((stuck[:, 0, 0] != 1).sum((1, 2)) == 40).all() and torch.equal(stuck.sum(2), full.sum(2))
    off = int((stuck[:, 0, 0] == 2).sum())
    near(off, 160, 80**0.5)


def test_hot_pixels_fire_in_every_step_over_the_scene(counts):
    binary = counts.clamp(max=1)
    result = corrupted(binary, "hot_pixels", 0.2, largest=1)
    assert (result >= binary).all() and (result[:, :, 1].all(1).sum((1, 2)) >= 80).all()


@pytest.mark.parametrize("severity", [float("nan"), -0.1, 1.1, float("inf")])
def test_impossible_severities_are_refused(counts, severity):
    with pytest.raises(UsageError, match=r"must lie in \[0, 1\]"):
        corrupted(counts, "event_drop", severity)


def test_a_new_corruption_is_one_entry(counts, monkeypatch):
    monkeypatch.setitem(CORRUPTIONS, "none", Corruption(lambda frames, severity, generator: frames + 9, "events"))
    assert (corrupted(counts, "none", 0.5) == LARGEST).all()
