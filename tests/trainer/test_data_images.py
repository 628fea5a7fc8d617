"""Pictures: CIFAR's original files, arrays, folders, the embedded digits; direct and rate encoding."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hardspike import HardspikeError, UsageError
from trainer.config import FitConfig
from trainer.data import DataConfig, load
from trainer.fit import fit
from trainer.networks import NetworkConfig

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
