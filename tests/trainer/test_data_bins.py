"""Parts of a step in channels of their own (`bins`): the same counts as of so many steps, in another order."""

from dataclasses import replace

import pytest
import torch

from eval.mode import HARD
from eval.options import Sample
from eval.robustness.corruptions import check_frames
from eval.robustness.curves import Inputs, possible
from eval.subject import open_subjects
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError
from tests.eval.opened import subjects
from tests.trainer.test_data_events import five_bytes
from trainer.config import FitConfig
from trainer.data import AugmentConfig, DataConfig, load
from trainer.data.samples import in_bins, in_steps
from trainer.data.spikes_file import write_spikes
from trainer.fit import fit
from trainer.networks import NetworkConfig, build
from trainer.run import Run


@pytest.mark.parametrize(("steps", "bins"), [(1, 6), (2, 3), (3, 2)])
def test_parts_of_a_step_are_its_channels(steps, bins):
    fine = load(DataConfig(steps=6)).test.frames
    data = load(DataConfig(steps=steps, bins=bins))
    assert (data.shape, data.steps, data.bins) == ((2 * bins, 34, 34), steps, bins)
    frames = data.test.frames
    for step in range(steps):
        for part in range(bins):
            assert torch.equal(frames[:, step, 2 * part:2 * part + 2], fine[:, step * bins + part])
    assert torch.equal(in_bins(frames, bins), fine) and torch.equal(in_steps(fine, bins), frames)
    assert fine.any()


def test_events_move_and_are_lost_part_by_part(tmp_path):
    how = AugmentConfig(shift=0, rotation=0, scale=0, shear=0, jitter=2, drop=0.5)
    minibatches = []
    for steps, bins in ((4, 1), (1, 4)):
        config = FitConfig(out=tmp_path, data=DataConfig(steps=steps, bins=bins), augment=how)
        data = load(config.data)
        run = Run(config, data, build(NetworkConfig(layers="4c3-ap2-8"), data.shape, data.classes), torch.device("cpu"))
        frames, _ = next(run._stream(1, 0))
        minibatches.append(in_bins(frames.transpose(0, 1), bins))
    assert torch.equal(*minibatches) and minibatches[0].any()


def test_a_run_remembers_its_parts_and_meets_the_corruptions_of_as_many_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))
    inputs, names = [], ("time_jitter", "bin_drop", "stuck_pixels")
    for steps, bins in ((6, 1), (2, 3)):
        folder = tmp_path / f"{bins}"
        fit(FitConfig(out=folder, epochs=1, data=DataConfig(steps=steps, bins=bins),
                      network=NetworkConfig(layers="4c3-ap2-8")))
        subject, = subjects(folder, samples=8)
        assert subject.model.data.bins == subject.data.bins == bins and subject.model.shape == (2 * bins, 34, 34)
        curves, left_out = possible([*names], [(subject, HARD)])
        assert [curve.corruption for curve in curves] == [*names] and not left_out
        write_spikes(subject.model.data, out=tmp_path / "x.npz", samples=8)
        same, = open_subjects([folder], Recordings(input=tmp_path / "x.npz"), Sample(samples=8))
        assert same.data.bins == bins and torch.equal(same.part.frames, subject.part.frames)
        inputs.append([in_bins(Inputs(subject, 1).frames(name, 0.3), bins) for name in names])
    assert all(map(torch.equal, *inputs)) and all(frames.any() for frames in inputs[0])


def test_in_one_step_nothing_moves_in_time():
    with pytest.raises(HardspikeError, match="have one time step, in which no event moves"):
        check_frames(torch.ones(3, 1, 2, 4, 4), "time_jitter")
    check_frames(torch.ones(3, 1, 2, 4, 4), "bin_drop")


@pytest.mark.parametrize("options", [{"bins": 0}, {"bins": -1}, {"steps": 1 << 19, "bins": 3}])
def test_impossible_parts(options):
    with pytest.raises(UsageError, match="bins"):
        DataConfig(**options)


@pytest.mark.parametrize("name", ["images", "canvas", "frames"])
def test_what_has_frames_already_refuses_parts(name):
    with pytest.raises(UsageError, match=f"bins 2: {name} has frames"):
        load(DataConfig(name, bins=2))


def test_folds_of_a_folder_that_has_one_part_only(tmp_path, monkeypatch):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))
    for digit in range(10):
        folder = tmp_path / "Train" / str(digit)
        folder.mkdir(parents=True)
        for number in range(6):
            (folder / f"{number:05d}.bin").write_bytes(five_bytes([(1000 * number, digit, 0, 1)]))
    config = DataConfig("nmnist", tmp_path, folds=3, fold=1, steps=1)
    data = load(config)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [30, 10, 20]
    assert data.test.frames.any()
    with pytest.raises(HardspikeError, match=r"Test: no such folder.*--data.folds 5, which holds a fifth"):
        len(load(replace(config, folds=0)).test.labels)
