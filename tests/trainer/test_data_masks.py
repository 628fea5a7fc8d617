"""Sources that label pixels: the embedded canvases, ADE20K's layout, and masks that move with their frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hardspike import HardspikeError, UsageError
from tests.canvases import DATA, few
from trainer.data import AugmentConfig, DataConfig, load
from trainer.data.augment import augment, augment_masks
from trainer.data.samples import IGNORED
from trainer.data.sources import canvas
from trainer.data.spikes_file import write_spikes


@pytest.fixture(autouse=True)
def _few(monkeypatch, tmp_path):
    few(monkeypatch)
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))


def ade20k(folder: Path, sizes=((40, 30), (20, 36), (24, 24), (9, 50))) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A small ADE20K; what was written, pictures (H, W, 3) and annotations (H, W). Width and height in `sizes`."""
    written, random = {}, np.random.default_rng(0)
    for part in ("training", "validation"):
        for kind in ("images", "annotations"):
            (folder / kind / part).mkdir(parents=True)
        for i, (width, height) in enumerate(sizes):
            name = f"ADE_{part[:3]}_{i:08d}"
            picture = np.full((height, width, 3), 20 + 50 * i, np.uint8)
            classes = random.integers(0, 151, (height, width), dtype=np.uint8)
            Image.fromarray(picture).save(folder / "images" / part / f"{name}.jpg", quality=100)
            Image.fromarray(classes).save(folder / "annotations" / part / f"{name}.png")
            written[f"{part}/{name}"] = picture, classes
    return written


def test_canvases_hold_digits_of_their_own_part_and_the_mask_is_where_their_ink_is():
    data = load(DATA)
    again = load(replace(DATA, steps=1))
    assert data.masked and data.still and data.classes == 11 and data.shape == (1, 24, 24)
    for part in ("train", "validation", "test"):
        split = getattr(data, part)
        frames, masks = split.frames[:, 0, 0].numpy(), split.labels.numpy()
        assert torch.equal(split.frames[:, 1], split.frames[:, 0]) and not split.labelled and split.masked
        assert np.array_equal(getattr(again, part).labels.numpy(), masks)
        ink = masks != canvas.BACKGROUND
        assert (frames[ink] >= canvas.INK * 255 // 16).all() and ink.any((1, 2)).all()
        assert (frames[~ink] < canvas.INK * 255 // 16).all()  # noise, and the faint rim of a digit
        assert len(np.unique(masks)) > 5


def test_no_digit_is_on_canvases_of_two_parts(monkeypatch):
    given, made = {}, canvas.canvas
    monkeypatch.setattr(canvas, "canvas", lambda images, labels, pool, seed: given.setdefault(seed[0], set()).update(
        pool) or made(images, labels, pool, seed))
    load(DATA)
    train, validation, test = (given[part] for part in range(3))
    assert not (train & validation or train & test or validation & test)
    assert len(train | validation | test) == 1797


def test_canvases_depend_on_the_split_of_digits_and_refuse_folds_and_sizes():
    other = load(replace(DATA, split_seed=1))
    assert not torch.equal(other.train.labels, load(DATA).train.labels)
    assert torch.equal(other.test.labels, load(DATA).test.labels)
    for option, message in (({"folds": 3}, "canvases share digits"), ({"size": 12}, "24 pixels each way"),
                            ({"path": Path("x")}, "digits are made here")):
        with pytest.raises(UsageError, match=message):
            load(replace(DATA, **option))


@pytest.mark.parametrize("side", [16, 50])
def test_ade20k_as_it_comes_is_scaled_whole_and_zero_is_ignored(side, tmp_path):
    written = ade20k(tmp_path / "ade")
    data = load(DataConfig("ade20k", tmp_path / "ade", size=side, encoding="count", count_max=255, steps=1,
                           validation=0.25))
    assert data.classes == 150 and data.shape == (3, side, side) and data.masked
    assert (len(data.train), len(data.validation), len(data.test)) == (3, 1, 4)
    assert {name.split("/")[0] for name in data.test.ids} == {"validation"}
    for split in (data.train, data.test):
        for i, name in enumerate(split.ids):
            picture, classes = written[name]
            height, width = (max(1, round(n * side / max(classes.shape))) for n in classes.shape)
            frame, mask = split.frames[i, 0], split.labels[i].numpy()
            assert (mask[height:] == IGNORED).all() and (mask[:, width:] == IGNORED).all()
            assert not frame[:, height:].any() and not frame[:, :, width:].any()
            assert (frame[:, :height, :width].int() - int(picture[0, 0, 0])).abs().max() <= 2  # JPEG
            if max(classes.shape) == side:
                assert np.array_equal(mask[:height, :width], np.where(classes == 0, 255, classes.astype(int) - 1))
            assert set(np.unique(mask)) <= {IGNORED, *(np.unique(classes).astype(int) - 1) % 256}


def _spoilt(folder: Path, what: str) -> None:
    image, annotation = (sorted((folder / kind / "training").iterdir())[1] for kind in ("images", "annotations"))
    if what == "missing":
        annotation.unlink()
    elif what == "empty":
        annotation.write_bytes(b"")
    elif what == "size":
        Image.fromarray(np.zeros((5, 7), np.uint8)).save(annotation)
    elif what == "colours":
        Image.fromarray(np.zeros((36, 20, 3), np.uint8)).save(annotation)
    elif what == "class":
        Image.fromarray(np.full((36, 20), 151, np.uint8)).save(annotation)
    elif what == "picture":
        image.write_bytes(image.read_bytes()[:200])
    elif what == "nothing":
        for kind in ("images", "annotations"):
            (folder / kind).rename(folder / f"old {kind}")


@pytest.mark.parametrize(("what", "message"), [
    ("missing", "ADE_tra_00000001.png: no such annotation"), ("empty", "00000001.png: cannot be read as an annotation"),
    ("size", "7 x 5 pixels, its picture has 20 x 36"), ("colours", "RGB, 20 x 36"), ("class", "class 151; 0"),
    ("picture", "00000001.jpg: cannot be read as a picture"), ("nothing", "no pictures to train")])
def test_a_bad_ade20k_is_one_clear_line_and_leaves_no_cache(what, message, tmp_path):
    ade20k(tmp_path / "ade")
    _spoilt(tmp_path / "ade", what)
    with pytest.raises(HardspikeError, match=message) as caught:
        load(DataConfig("ade20k", tmp_path / "ade", size=16, encoding="count", count_max=255, steps=1))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("*masks*")) and not list((tmp_path / "cache").glob(".*masks*"))


def test_ade20k_without_a_path_or_a_size_says_what_to_give(tmp_path):
    ade20k(tmp_path / "ade")
    for options, message in (({}, "give --path"), ({"path": tmp_path / "ade"}, "give --size")):
        with pytest.raises(UsageError, match=message):
            load(DataConfig("ade20k", **options))


def test_one_of_its_parts_alone_is_missed_when_it_is_asked_for(tmp_path):
    ade20k(tmp_path / "ade")
    for kind in ("images", "annotations"):
        (tmp_path / "ade" / kind / "training").rename(tmp_path / f"{kind} elsewhere")
    data = load(DataConfig("ade20k", tmp_path / "ade", size=16))
    assert len(data.test) == 4
    with pytest.raises(HardspikeError, match="no pictures to train"):
        len(data.train.labels)


@pytest.mark.parametrize("limits", [{"shift": 3}, {"rotation": 30}, {"scale": 0.3, "shear": 0.2}, {"elastic": 2}, {}])
def test_masks_move_with_their_frames_whatever_else_is_lost(limits):
    how = AugmentConfig(**{"shift": 0, "rotation": 0, "scale": 0, "shear": 0, "drop": 0.5, "jitter": 1, **limits})
    masks = torch.randint(0, 11, (4, 12, 10), dtype=torch.uint8)
    frames = (masks + 1)[:, None, None].expand(4, 3, 1, 12, 10).float()
    generator = torch.Generator().manual_seed(3)
    moved = augment_masks(masks, generator, how)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(3).get_state())
    found = augment(frames, generator, how)
    kept = found > 0  # neither lost nor from outside
    assert kept.any() and torch.equal(found[kept].long() - 1, moved[:, None, None].expand_as(found)[kept])
    outside = augment(frames, torch.Generator().manual_seed(3), replace(how, drop=0.0, jitter=0))[:, 0, 0] == 0
    assert torch.equal(moved == IGNORED, outside)
    if limits:
        assert not torch.equal(moved, masks.long())


def test_a_file_of_spikes_says_masks(tmp_path):
    write_spikes(DATA, "test", tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as found:
        assert found["masks"].shape == (10, 24, 24) and "labels" not in found
