"""Pictures: CIFAR's original files, arrays, folders, the embedded digits; direct and rate encoding."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from hardspike import HardspikeError, UsageError
from trainer import checkpoint, distributed
from trainer import fit as fit_module
from trainer.config import FitConfig
from trainer.data import DataConfig, load
from trainer.data.config import AugmentConfig, RandAugmentConfig
from trainer.data.sources import SOURCES
from trainer.fit import fit
from trainer.methods.a2sg import A2sgConfig
from trainer.networks import NetworkConfig
from trainer.run import Run

RANDOM = np.random.default_rng(0)
NAMES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def cifar(folder: Path, kind: str, each: int = 30) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """CIFAR-10 or -100 in one of its four formats; what was written, pictures (N, 3072) and labels."""
    written: dict = {}
    hundred = "100" in kind
    (folder / kind).mkdir(parents=True)
    for part, names in ({"train": ["train"], "test": ["test"]} if hundred else NAMES).items():
        for name in names:
            rows = RANDOM.integers(0, 256, (each, 3072), dtype=np.uint8)
            labels = np.arange(each) % 10
            if kind.endswith("py") or kind.endswith("python"):
                key = b"fine_labels" if hundred else b"labels"
                more = {b"coarse_labels": [9] * each} if hundred else {b"batch_label": name.encode()}
                content = {b"data": rows, key: labels.tolist(), **more}
                (folder / kind / name).write_bytes(pickle.dumps(content, protocol=2))
            else:
                head = [np.full(each, 9), labels] if hundred else [labels]
                (folder / kind / f"{name}.bin").write_bytes(
                    np.concatenate([*(column[:, None] for column in head), rows], axis=1).astype(np.uint8).tobytes())
            pictures, all_labels = written.setdefault(part, ([], []))
            pictures.append(rows), all_labels.append(labels)
    return {part: (np.concatenate(rows), np.concatenate(labels)) for part, (rows, labels) in written.items()}


@pytest.mark.parametrize("kind", ["cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary",
                                  "cifar-100-python"])
def test_cifar_as_it_comes_gives_its_pictures(kind, tmp_path):
    written = cifar(tmp_path, kind)
    for path in (tmp_path, tmp_path / kind):
        data = load(DataConfig("images", path, steps=2, encoding="count", count_max=255))
        rows, labels = written["test"]
        assert data.shape == (3, 32, 32) and data.classes == 10 and data.test.labels.tolist() == labels.tolist()
        assert np.array_equal(data.test.frames.numpy(), np.stack([rows.reshape(-1, 3, 32, 32)] * 2, axis=1))
        assert len(data.train) + len(data.validation) == len(written["train"][1])
        assert data.to_input(data.test.frames).max() == 1.0


def pictures(folder: Path, **network) -> FitConfig:
    """A run as A2SG describes its own (A.10), but for its length, on pictures of noise."""
    cifar(folder, "cifar-10-batches-bin", each=4)
    data = DataConfig("images", folder, steps=2, encoding="count", count_max=255, validation=0.3)
    augmented = AugmentConfig(1, 0, 0, 0, 0, 0, 0, cutmix=1.0, mixup=0.8,
                              randaugment=RandAugmentConfig(1, magnitude=1, deviation=0.4, rate=0.5))
    return FitConfig(out=folder / "run", method="a2sg", epochs=2, batch_size=6, data=data, augment=augmented, lr=6e-3,
                     lr_start=1e-5, lr_end=1e-5, warmup=1, weight_decay=2e-2, label_smoothing=0.1,
                     a2sg=A2sgConfig(metric="membrane"), threads=1,
                     network=NetworkConfig(beta=0.5, reset="subtract_leaky", **network))


def test_every_augmentation_of_pictures_goes_on_bit_for_bit(tmp_path, monkeypatch):
    config = pictures(tmp_path, layers="4c3s4-16")
    whole = fit(config)
    broken, epoch = replace(config, out=tmp_path / "broken"), Run.epoch
    with monkeypatch.context() as patch:
        patch.setattr(Run, "epoch", lambda run, number: epoch(run, number) if number < 2 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(broken)
    one, two = (checkpoint.load(run.folder / "last.pt").training["network"] for run in (whole, fit(broken, True)))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    # shares of a minibatch come out alike for a process that has a part of it
    run = fit_module._begun(config, torch.device("cpu"))
    frames, labels = next(run._stream(1, 0))
    monkeypatch.setattr(distributed, "shard", lambda count: slice(2, 5))
    part, part_labels = next(run._stream(1, 0))
    assert labels.shape == (6, 4) and frames.stride(0) == 0 and frames.shape == (2, 6, 3, 32, 32)
    assert torch.equal(part, frames[:, 2:5]) and torch.equal(part_labels, labels[2:5])


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["vgg16", "resnet19"])
def test_published_networks_train_on_cifar_with_augmentation_and_a2sg(layers, tmp_path):
    """A step and an epoch; every weight moves, and what is written is read back."""
    config = replace(pictures(tmp_path, layers=layers), epochs=1)
    run = fit_module._begun(config, torch.device("cpu"))
    run.method.begin(run.state, 1)
    run.network.train()
    before = [parameter.detach().clone() for parameter in run.network.parameters()]
    stream = run._stream(1, 0)
    assert 0 < run.step(next(stream), lambda: next(stream)) < 100
    assert all(not torch.equal(*pair) for pair in zip(before, run.network.parameters(), strict=True))
    done = fit(config)
    assert np.isfinite(done.history[0]["train_loss"]) and done.history[0]["spikes_per_sample"] > 0
    assert sum(p.numel() for p in checkpoint.load(done.best).network.parameters()) == sum(p.numel() for p in before)


def test_a_network_trains_on_cifar(tmp_path):
    cifar(tmp_path, "cifar-10-batches-bin", each=20)
    data = DataConfig("images", tmp_path, steps=2, encoding="count", count_max=255)
    run = fit(FitConfig(out=tmp_path / "run", method="a2sg", epochs=1, data=data, network=NetworkConfig("4c3s4-16")))
    assert len(run.history) == 1


class _Trap:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_a_pickle_that_calls_something_is_refused_before_it_does(tmp_path):
    cifar(tmp_path, "cifar-10-batches-py", each=20)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(
        pickle.dumps({b"data": _Trap(tmp_path / "ran"), b"labels": [0]}, protocol=2))
    with pytest.raises(HardspikeError, match=r"data_batch_3: names .*; no CIFAR file"):
        load(DataConfig("images", tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content, said", [
    (b"", "cannot be read as CIFAR"), (b"\x80\x02}q\x00.", "cannot be read as CIFAR"),
    (pickle.dumps([1, 2]), "cannot be read as CIFAR"), (pickle.dumps({b"data": 3, b"labels": [1]}), "are expected"),
    (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), "are expected"),
    (pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [1]}), "are expected")])
def test_a_damaged_pickle_is_one_line(content, said, tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(HardspikeError, match=said):
        load(DataConfig("images", tmp_path))


def arrays(path: Path, shape: tuple[int, ...], each: int = 20) -> None:
    path.mkdir(exist_ok=True)
    for part in ("train", "test"):
        np.savez(path / f"{part}.npz", images=RANDOM.integers(0, 256, (each, *shape), dtype=np.uint8),
                 labels=np.arange(each) % 2)


@pytest.mark.parametrize("shape, expected", [((9, 14), (1, 9, 14)), ((9, 14, 3), (3, 9, 14)), ((5, 6, 4), (4, 5, 6))])
def test_arrays_of_any_shape(shape, expected, tmp_path):
    arrays(tmp_path, shape)
    data = load(DataConfig("images", tmp_path, steps=3, encoding="count", count_max=5))
    images = np.load(tmp_path / "test.npz")["images"].reshape(20, *expected[1:], expected[0]).transpose(0, 3, 1, 2)
    assert data.shape == expected
    assert np.array_equal(data.test.frames[:, 2].numpy(), np.floor(images / 255 * 5 + 0.5))


def test_folders_of_pictures(tmp_path):
    written = {}
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i, ending in enumerate(("png", "bmp", "ppm")):
                picture = RANDOM.integers(0, 256, (7, 5, 3), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / part / name / f"{i}.{ending}")
                written[part, label, i] = picture
    data = load(DataConfig("images", tmp_path, steps=1, encoding="count", count_max=255))
    assert data.test.labels.tolist() == [0] * 3 + [1] * 3 and data.shape == (3, 7, 5)
    for place, (label, i) in enumerate((label, i) for label in range(2) for i in range(3)):
        assert np.array_equal(data.test.frames[place, 0].numpy(), written["test", label, i].transpose(2, 0, 1))
    (tmp_path / "test" / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(HardspikeError, match=r"0.png: cannot be read as a picture"):
        load(DataConfig("images", tmp_path))
    Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(tmp_path / "test" / "cat" / "0.png")
    with pytest.raises(HardspikeError, match="make them alike"):
        load(DataConfig("images", tmp_path))


@pytest.mark.parametrize("each", [2, 10])
def test_folders_of_classes_alone_are_parted_as_those_of_events(each, tmp_path):
    """The same of each class are kept to test, whatever the files hold; pictures stay those of their files."""
    for name in ("cat", "dog", "eel"):
        for kind in ("pictures", "events"):
            (tmp_path / kind / name).mkdir(parents=True)
        for i in range(each):
            picture = RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "pictures" / name / f"{i}.png")
            np.savez(tmp_path / "events" / name / f"{i}.npz", x=[1, 2], y=[1, 2], t=[0, 900], p=[0, 1])
    config = DataConfig("images", tmp_path / "pictures", steps=1, encoding="count", count_max=255, folds=0)
    others = DataConfig("events", tmp_path / "events", sensor=(6, 5), window_ms=1)
    found, source = SOURCES["images"](config), SOURCES["events"](others)
    for part in ("train", "test"):
        kept = [(sample.label, sample.file.parent.name, sample.file.stem) for sample in getattr(source, part)]
        assert [(sample.label, sample.file.parent.name, sample.file.stem) for sample in getattr(found, part)] == kept
        assert {label for label, *_ in kept} == {0, 1, 2}
        for sample in getattr(found, part):
            assert np.array_equal(found.read(sample)[0, 0], np.asarray(Image.open(sample.file)))
    assert len(found.test) == 3 * max(1, each // 5) and len(found.train) + len(found.test) == 3 * each
    if each > 2:
        data = load(config)
        assert data.classes == 3 and sorted(data.test.ids) == sorted(sample.id for sample in found.test)


def test_a_folder_with_a_part_is_not_taken_for_classes(tmp_path):
    """Pictures of classes called `train` and `other` would be trained on what they test."""
    (tmp_path / "train").mkdir()
    (tmp_path / "other").mkdir()
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "other" / "0.png")
    with pytest.raises(HardspikeError, match=r"no pictures; .*, or <class>/\*, of"):
        load(DataConfig("images", tmp_path))


def test_without_a_path_they_are_the_digits():
    data = load(DataConfig("images", steps=4, encoding="count", count_max=16))
    assert data.shape == (1, 8, 8) and data.classes == 10
    images = load_digits().images
    index = int(data.test.ids[5].partition("/")[2])
    assert np.array_equal(data.test.frames[5, 3, 0].numpy(), images[index])


def test_rates_are_the_intensities_and_draws_the_pictures_own():
    data, again = (load(DataConfig("images", steps=200)) for _ in range(2))
    direct = load(DataConfig("images", steps=1, encoding="count", count_max=255))
    for i in (0, 7):
        rate, intensity = data.test.frames[i].double().mean(0), direct.test.frames[i, 0].double() / 255
        assert (rate - intensity).abs().max() < 5 * 0.5 / 200**0.5
        assert (rate[intensity == 0] == 0).all() and (rate[intensity == 1] == 1).all()
    assert (data.test.frames == again.test.frames).all()
    assert not (data.test.frames[0, 0] == data.test.frames[0, 1]).all()


def test_pictures_are_not_scaled_and_have_to_be_there(tmp_path):
    with pytest.raises(UsageError, match="scale them before"):
        load(DataConfig("images", size=4))
    with pytest.raises(HardspikeError, match="no pictures"):
        load(DataConfig("images", tmp_path))
