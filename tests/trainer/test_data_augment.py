"""Augmentation: identity at zero, one draw a recording, the promised ranges, determinism."""

import pytest
import torch

from hardspike import UsageError
from trainer.data.augment import AugmentConfig, augment

OFF = {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "shear": 0.0, "elastic": 0.0, "drop": 0.0, "jitter": 0}


def only(**options) -> AugmentConfig:
    return AugmentConfig(**{**OFF, **options})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def frames():
    return (torch.rand(6, 5, 2, 16, 16, generator=seeded(1)) < 0.1).float()


def test_all_zero_is_the_identity(frames):
    assert torch.equal(augment(frames, seeded(), only()), frames)


def test_frames_stay_binary_and_the_seed_decides(frames):
    first, again, other = (augment(frames, seeded(seed), AugmentConfig()) for seed in (0, 0, 1))
    assert first.unique().tolist() == [0, 1] and first.shape == frames.shape
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_shift_moves_each_recording_by_whole_pixels_alike_at_all_steps():
    frames = torch.zeros(64, 3, 2, 17, 17)
    frames[..., 8, 8] = 1
    moved = augment(frames, seeded(), only(shift=3.0))
    places = [recording.nonzero()[:, 2:].unique(dim=0) for recording in moved]
    assert all(len(place) == 1 for place in places) and moved.sum() == frames.sum()
    offsets = torch.cat(places) - 8
    assert offsets.min() == -3 and offsets.max() == 3


def test_rotation_turns_about_the_centre_by_the_same_angle_either_way():
    frames = torch.zeros(400, 1, 1, 33, 33)
    frames[..., 16, 16:] = 1  # a ray to the right
    turned = augment(frames, seeded(), only(rotation=20.0))
    assert turned[..., 16, 16].all()
    row = torch.stack([recording[0, 0, :, 28].nonzero().float().mean() - 16 for recording in turned])
    angle = torch.rad2deg(torch.atan2(row, torch.tensor(12.0)))
    assert -22.5 < angle.min() < -16 and 16 < angle.max() < 22.5


def test_scale_changes_the_area_within_its_range():
    frames = torch.zeros(200, 1, 1, 40, 40)
    frames[..., 10:30, 10:30] = 1
    area = augment(frames, seeded(), only(scale=0.2)).sum(dim=(1, 2, 3, 4)) / 400
    assert 0.6 < area.min() < 0.72 and 1.3 < area.max() < 1.5


def test_shear_slides_rows_against_each_other():
    frames = torch.zeros(200, 1, 1, 33, 33)
    frames[..., 16] = 1  # a vertical line
    sheared = augment(frames, seeded(), only(shear=0.25))
    top = torch.stack([recording[0, 0, 4].nonzero().float().mean() - 16 for recording in sheared])
    assert 2.5 <= top.max() <= 3.5 and -3.5 <= top.min() <= -2.5


def test_elastic_moves_parts_of_a_picture_apart_but_not_far():
    frames = torch.zeros(100, 1, 1, 34, 34)
    frames[..., 6:9, 6:9] = frames[..., 25:28, 25:28] = 1
    bent = augment(frames, seeded(), only(elastic=2.0))
    assert bent.unique().tolist() == [0, 1]
    offsets = torch.stack([torch.stack([recording[0, 0, half].nonzero().float().mean(0) for half in
                                        (slice(0, 17), slice(17, 34))]) for recording in bent])
    offsets -= torch.tensor([[7.0, 7.0], [9.0, 26.0]])
    assert 1 < offsets.abs().max() < 3 and (offsets[:, 0] - offsets[:, 1]).abs().max() > 1


def test_jitter_moves_whole_steps_and_fills_with_nothing():
    frames = torch.arange(1.0, 6.0).view(1, 5, 1, 1, 1).repeat(60, 1, 1, 1, 1)
    seen = {tuple(recording.flatten().tolist()) for recording in augment(frames, seeded(), only(jitter=1))}
    assert seen == {(1, 2, 3, 4, 5), (0, 1, 2, 3, 4), (2, 3, 4, 5, 0)}


def test_drop_loses_a_part_of_its_own_for_every_recording():
    frames = torch.ones(200, 4, 2, 20, 20)
    lost = 1 - augment(frames, seeded(), only(drop=0.4)).mean(dim=(1, 2, 3, 4))
    assert lost.min() < 0.02 and 0.36 < lost.max() < 0.42 and lost.mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("options", [{"drop": 1.0}, {"shift": -1.0}, {"jitter": 5}, {"scale": 1.0},
                                     {"rotation": float("nan")}, {"shear": float("inf")}])
def test_a_limit_out_of_range_is_refused(frames, options):
    with pytest.raises(UsageError, match=next(iter(options))):
        augment(frames, seeded(), only(**options))
