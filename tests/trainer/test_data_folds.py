"""Folds for cross-validation: every recording is held out once, and nothing else changes."""

import pytest

from hardspike import HardspikeError, UsageError
from trainer.data import DataConfig, load
from trainer.data.samples import Sample, fold_split


def test_every_recording_is_held_out_once_and_classes_are_even():
    samples = [Sample(f"{label}/{i}/{part}", label, f"{label}/{i}") for label in range(3) for i in range(7 + label)
               for part in "ab"]
    held = []
    for fold in (1, 2, 3, 4):
        rest, out = fold_split(samples, 4, fold, seed=5)
        assert sorted(s.id for s in rest + out) == sorted(s.id for s in samples)
        assert not {s.recording for s in rest} & {s.recording for s in out}
        counts = [sum(s.label == label for s in out) / 2 for label in range(3)]
        assert all(count in (c // 4, c // 4 + 1) for count, c in zip(counts, (7, 8, 9), strict=True))
        held += out
    assert sorted(s.id for s in held) == sorted(s.id for s in samples)
    assert fold_split(samples, 4, 1, 5) == fold_split(samples, 4, 1, 5) != fold_split(samples, 4, 1, 6)
    with pytest.raises(HardspikeError, match="class 0: 7 recordings for 8 folds; take fewer"):
        fold_split(samples, 8, 1, 0)
    with pytest.raises(HardspikeError, match="class 0: 1 recordings for 2 folds; there is nothing to hold out of one"):
        fold_split([Sample("a", 0, "a")], 2, 1, 0)


def test_real_recordings_in_folds(shared_data):
    whole = load(DataConfig("nmnist", shared_data / "nmnist"))
    parts = [load(DataConfig("nmnist", shared_data / "nmnist", folds=3, fold=fold)) for fold in (1, 2, 3)]
    assert [len(part.test) for part in parts] == [300] * 3
    held = sorted(i for part in parts for i in part.test.ids)
    assert held == sorted(whole.train.ids + whole.validation.ids + whole.test.ids)
    for part in parts:
        assert len(set(part.train.ids) | set(part.validation.ids) | set(part.test.ids)) == 900
    frames = dict(zip(whole.test.ids, whole.test.frames, strict=True))
    for part in parts:
        assert all((frames[name] == values).all() for name, values in zip(part.test.ids, part.test.frames, strict=True)
                   if name in frames)


@pytest.mark.parametrize(("folds", "fold"), [(1, 1), (-2, 1), (3, 0), (3, 4)])
def test_impossible_folds(folds, fold):
    with pytest.raises(UsageError, match="folds"):
        load(DataConfig(folds=folds, fold=fold))
