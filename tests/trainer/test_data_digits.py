"""The embedded data set: the same everywhere, split without overlap, like N-MNIST in numbers."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from hardspike import UsageError, run
from trainer.__main__ import COMMANDS
from trainer.data import DataConfig, load
from trainer.data.events import to_counts
from trainer.data.sources import nmnist
from trainer.data.sources.digits import digit_events, source
from trainer.data.spikes_file import write_spikes


@pytest.fixture(scope="module")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARDSPIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def digits(_cache):
    return load(DataConfig())


def test_events_are_the_same_on_every_machine():
    image = load_digits().images[0].astype(np.int64)
    digest = hashlib.sha256(digit_events(image, 0).astype("<i8, <i8, <i8, <i8").tobytes()).hexdigest()
    assert digest[:16] == "275e62492497c98f"


def test_splits_share_no_sample_and_are_stratified(digits):
    parts = [digits.train, digits.validation, digits.test]
    assert [len(part) for part in parts] == [1295, 143, 359]
    assert len(set().union(*(part.ids for part in parts))) == 1797
    for part in parts:
        counts = torch.bincount(part.labels, minlength=10)
        assert counts.min() >= 0.85 * len(part) / 10
    targets = load_digits().target
    for part in parts:
        assert part.labels.tolist() == [targets[int(name)] for name in part.ids]


def test_frames_are_those_of_their_sample(digits):
    own = source(DataConfig())
    for part in (digits.train, digits.validation, digits.test):
        sample = next(s for s in [*own.train, *own.test] if s.id == part.ids[7])
        counts = to_counts(own.read(sample), 10, 34, 0, 300_000)
        np.testing.assert_array_equal(part.frames[7].numpy(), counts > 0)


def test_input_is_time_first_and_binary(digits):
    frames = digits.to_input(digits.train.frames[:4])
    assert frames.shape == (10, 4, 2, 34, 34) and frames.dtype == torch.float32
    assert frames.unique().tolist() == [0, 1] and digits.shape == (2, 34, 34) and digits.scale == 1
    assert torch.equal(frames[3, 2], digits.train.frames[2, 3].float())


def test_the_split_seed_moves_validation_alone(digits, monkeypatch, tmp_path):
    event = digit_events(np.zeros((8, 8)), 0)[:1]
    monkeypatch.setattr("trainer.data.sources.digits.digit_events", lambda image, seed: event)
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path))
    other = load(DataConfig(split_seed=1, steps=1))
    assert other.test.ids == digits.test.ids and set(other.validation.ids) != set(digits.validation.ids)


def test_numbers_are_those_of_real_recordings(shared_data):
    def numbers(own):
        events = [own.read(sample) for sample in own.train[::40]]
        counts = np.stack([to_counts(e, 10, 34, 0, 300_000) for e in events])
        active = counts > 0
        return {"events": np.mean([len(e) for e in events]), "ON": np.mean(np.concatenate([e["p"] for e in events])),
                "density": active.mean(), "events a voxel": counts[active].mean()}

    real = numbers(nmnist.source(DataConfig(path=shared_data / "nmnist")))
    made = numbers(source(DataConfig()))
    for name, value in real.items():
        assert made[name] == pytest.approx(value, rel=0.12), name


@pytest.mark.parametrize(("options", "message"), [
    ({"name": "digit"}, "did you mean 'digits'"),
    ({"encoding": "counts"}, "did you mean 'count'"),
    ({"steps": 0}, "steps 0"),
    ({"validation": 0.0}, "validation 0.0"),
    ({"validation": 1.0}, "validation 1.0"),
    ({"validation": float("nan")}, "validation nan"),
    ({"count_max": 256}, "count_max 256"),
    ({"split_seed": -1}, "split_seed -1"),
    ({"size": 35}, "size 35: must be at most the sensor's 34"),
    ({"size": 0}, "size 0"),
    ({"window_ms": 100}, "window_ms 100"),
    ({"path": "recordings"}, "digits are made here"),
])
def test_an_impossible_value_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        load(DataConfig(**options))


def test_spikes_file(digits, tmp_path):
    content = np.load(write_spikes(DataConfig(), out=tmp_path / "s.npz", samples=5))
    assert content["spikes"].shape == (10, 5, 2, 34, 34) and content["spikes"].dtype == np.uint8
    rows = [digits.test.ids.index(name) for name in content["ids"]]
    np.testing.assert_array_equal(content["spikes"], digits.test.frames[rows].transpose(0, 1).numpy())
    assert content["labels"].tolist() == digits.test.labels[rows].tolist()
    assert len(np.load(write_spikes(DataConfig(), out=tmp_path / "s.npz", samples=400))["ids"]) == 359


def test_the_command_draws_as_every_command_does_and_takes_the_whole_configuration(digits, tmp_path):
    out = tmp_path / "s.npz"
    words = ["data", "digits", "--out", str(out), "--split", "validation"]
    assert run("trainer", COMMANDS, [*words, "--samples", "7"]) == 0
    content, part = np.load(out), digits.validation.spread(7)
    assert content["ids"].tolist() == part.ids and content["labels"].tolist() == part.labels.tolist()
    assert run("trainer", COMMANDS, [*words, "--validation", "0.2", "--split_seed", "3", "--samples", "0"]) == 0
    other = load(DataConfig(validation=0.2, split_seed=3)).validation
    assert np.load(out)["ids"].tolist() == other.ids and len(other) > 200
    assert run("trainer", COMMANDS, [*words, "--name", "nmnist"]) == 2


@pytest.mark.parametrize("options", [{"split": "tests"}, {"out": "s.npy"}, {"samples": -1}])
def test_spikes_file_refuses(digits, tmp_path, options):
    with pytest.raises(UsageError):
        write_spikes(DataConfig(), **{"out": tmp_path / "s.npz", **options})
