"""A checkpoint is data: what is no plain value, or declares more than it holds, is refused in one line."""

import io
import pickle
import zipfile
from contextlib import nullcontext

import pytest
import torch

from hardspike import HardspikeError
from tests.networks import THEORY
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.networks import NetworkConfig, build

SHAPE, CLASSES = (2, 6, 6), 4


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A checkpoint's file."""
    options = NetworkConfig(layers="4c3s2-8")
    row = dict.fromkeys(checkpoint.ROW, 1.0) | {"layers": {"lif1": {"fisher": 0.5}}}
    made = checkpoint.Checkpoint(
        FitConfig(network=options),
        build(options, SHAPE, CLASSES),
        SHAPE,
        CLASSES,
        1,
        [row],
        {"phi(-theta)": 0.1, "q_loose": 1.9, "q_tight": 0.9, "theory_aligned": True, "why_not": ""},
        training={key: {} for key in checkpoint.TRAINING},
    )
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(made, Path(folder) / "c.pt")
        return (Path(folder) / "c.pt").read_bytes()


def changed(whole: bytes, path, **values):
    content = torch.load(io.BytesIO(whole), weights_only=True)
    torch.save({**content, **values}, path)
    return path


def test_it_is_read(whole, tmp_path):
    (tmp_path / "c.pt").write_bytes(whole)
    found = checkpoint.load(tmp_path / "c.pt")
    assert found.history[0]["layers"] == {"lif1": {"fisher": 0.5}} and found.network(
        torch.zeros(3, 1, *SHAPE)
    ).shape == (1, 4)


def test_an_epoch_of_a_pyramid_has_its_intersections_over_unions(tmp_path):
    options = NetworkConfig(layers="4c3s2-6c3s2", pyramid=4)
    row = dict.fromkeys(checkpoint.ROW, 1.0)
    for mious, good in (({"surrogate_miou": 0.5, "hard_miou": 0.4}, True), ({}, False),
                        ({"surrogate_miou": 0.5, "hard_miou": "0.4"}, False)):
        made = checkpoint.Checkpoint(FitConfig(network=options), build(options, SHAPE, CLASSES), SHAPE, CLASSES, 1,
                                     [row | mious], THEORY)
        checkpoint.save(made, tmp_path / "c.pt")
        with nullcontext() if good else pytest.raises(HardspikeError, match=r"epoch 1: .*_miou .*; 0 to 1"):
            checkpoint.load(tmp_path / "c.pt")


HUGE = {"network": {"layers": "1000000-1000000"}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"config": HUGE}, "parameters, where"),
        ({"classes": 2**30}, "parameters, where"),
        ({"config": {"network": {"layers": "4c3p1000000"}}}, "more than 268435456 values"),
        ({"config": {"network": {"layers": "-".join(["4"] * 2000)}}}, "2000 of them; at most 1000"),
        ({"config": {"network": {"layers": "4c3s2-9"}}}, "parameters, where|is of shape|is \\("),
        ({"config": "/etc/passwd"}, "config|keys"),
        ({"config": {"data": {"class_path": "os.X"}}}, "class_path"),
        ({"config": {"network": {"surrogate": {"class_path": "os.X", "init_args": {}}}}}, "class_path"),
        ({"config": None}, "keys"),
        ({"shape": (2, 10**6, 10**6)}, "parameters, where|more than"),
        ({"shape": 5}, "shape 5"),
        ({"shape": (2, 6)}, "shape"),
        ({"shape": (2, -6, 6)}, "shape"),
        ({"shape": (2.0, 6, 6)}, "shape"),
        ({"classes": 4.0}, "classes"),
        ({"classes": True}, "classes"),
        ({"classes": "x"}, "classes"),
        ({"epoch": "<img src=x>"}, "epoch '<img"),
        ({"epoch": -1}, "epoch"),
        ({"epoch": None}, "epoch"),
        ({"history": 5}, "history 5"),
        ({"history": [5]}, "history, epoch 1"),
        ({"history": [{}]}, "history, epoch 1"),
        ({"history": [dict.fromkeys(checkpoint.ROW, 1.5)]}, "surrogate_accuracy 1.5; 0 to 1"),
        ({"history": [dict.fromkeys(checkpoint.ROW, "x")]}, "no number for 'epoch'"),
        ({"history": [dict.fromkeys(checkpoint.ROW, float("nan"))]}, "no number for 'epoch'"),
        ({"history": [dict.fromkeys(checkpoint.ROW, 1.0) | {"layers": 5}]}, "history, epoch 1: layers 5"),
        *(
            ({"history": [dict.fromkeys(checkpoint.ROW, 1.0) | {"layers": {"lif1": layer}}]}, "numbers of each layer")
            for layer in (5, {"sgv": [1.0]}, {"widths": 1.0}, {"widths": []}, {"tgc": ["x"]}, {"fisher": True})
        ),
        ({"diagnostics": None}, "diagnostics null"),
        ({"diagnostics": []}, "diagnostics"),
        ({"diagnostics": {}}, "diagnostics"),
        ({"diagnostics": {"phi(-theta)": 0.1, "q_loose": "1", "q_tight": 1.0, "theory_aligned": True, "why_not": ""}},
         "q_tight, theory_aligned and why_not are needed"),
        ({"training": {}}, "no 'network'"),
        ({"training": [1]}, "training"),
        ({"calibration": 5}, "calibration 5"),
        ({"calibration": {}}, "calibration of kind null"),
        ({"calibration": {"kind": ["a"]}}, "calibration of kind"),
        ({"calibration": {"kind": "\x1b[31m"}}, "calibration of kind"),
        ({"hard": 1}, "hard 1"),
        ({"slope": "x"}, "slope|float"),
        ({"slope": -1.0}, "slope -1.0"),
        ({"network": {}}, "parameters, where"),
        ({"network": {"a": 5}}, "no tensors"),
        ({"network": []}, "no tensors"),
        ({"extra": {1, 2}}, "set"),
        ({"extra": b"x"}, "bytes|refused"),
        ({"extra": torch.zeros(1).expand(10**12)}, "not stored in full"),
        ({"extra": torch.zeros(3).to_sparse()}, "refused|stored"),
        ({"extra": torch.empty(3, device="meta")}, "refused|stored"),
        ({"extra": {(1, 2): 3}}, "is no name"),
        ({"extra": {"a\x1b": 3}}, "is no name"),
        ({"extra": complex(1, 2)}, "complex|refused"),
        ({"format": [2]}, "format"),
        ({"format": torch.ones(2)}, "checkpoint format tensor"),
        ({"format": True}, "checkpoint format true"),
    ],
)
def test_what_is_not_as_it_was_saved_is_one_line(whole, tmp_path, values, message):
    path = changed(whole, tmp_path / "c.pt", **values)
    with pytest.raises(HardspikeError, match=rf"c\.pt.*({message})") as caught:
        checkpoint.load(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("key", checkpoint.KEYS)
def test_a_missing_part_is_named(whole, tmp_path, key):
    content = torch.load(io.BytesIO(whole), weights_only=True)
    del content[key]
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(HardspikeError, match=f"'{key}' is missing|but not a checkpoint"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_reset_that_is_not_the_configured_one_is_refused(whole, tmp_path):
    network = torch.load(io.BytesIO(whole), weights_only=True)["network"]
    name = next(name for name in network if name.endswith("reset_mechanism_val"))
    for value in (torch.tensor(1), torch.tensor(1 << 40)):
        with pytest.raises(HardspikeError, match=f"{name} is {value}, where reset 'subtract' has 0"):
            checkpoint.load(changed(whole, tmp_path / "c.pt", network={**network, name: value}))


def test_an_endless_list_is_refused(whole, tmp_path):
    bomb = []
    for _ in range(30):
        bomb = [bomb, bomb]
    with pytest.raises(HardspikeError, match="more than 1000000 values"):
        checkpoint.load(changed(whole, tmp_path / "c.pt", extra=bomb))
    bomb = []
    for _ in range(40):
        bomb = [bomb]
    with pytest.raises(HardspikeError, match="deeper than 32"):
        checkpoint.load(changed(whole, tmp_path / "c.pt", extra=bomb))


def rezipped(whole: bytes, change, compression=zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(made, "w", compression) as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return made.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\x80\x02]q\x00.", b"cbuiltins\neval\n(S'1'\ntR.", b"\x80\x02c__main__\nX\n."]
)
def test_a_damaged_pickle_in_a_whole_zip_is_one_line(whole, tmp_path, data):
    made = rezipped(whole, lambda name, content: data if name.endswith("data.pkl") else content)
    (tmp_path / "c.pt").write_bytes(made)
    with pytest.raises(HardspikeError, match=r"c\.pt: (refused: it names |not a checkpoint|a PyTorch file, but)"):
        checkpoint.load(tmp_path / "c.pt")


class Runs:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Runs(print, "x"), "builtins.print|__builtin__.print"),
        (Runs(pickle.loads, b""), "_pickle.loads|pickle"),
        (Runs(torch.load, "x"), "torch.serialization.load"),
        (Runs(bytearray, 10**12), ".*bytearray"),
    ],
)
def test_what_would_be_called_is_named(whole, tmp_path, thing, name):
    with pytest.raises(HardspikeError, match=f"refused: it names ({name})"):
        checkpoint.load(changed(whole, tmp_path / "c.pt", extra=thing))


def test_a_packed_file_is_refused(whole, tmp_path):
    (tmp_path / "c.pt").write_bytes(rezipped(whole, lambda name, content: content, zipfile.ZIP_DEFLATED))
    with pytest.raises(HardspikeError, match="it is packed"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_network_that_memory_does_not_hold_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr("hardspike.memory.free_memory", lambda: 10**9)
    with pytest.raises(
        HardspikeError, match=r"layers '9000-9000': up to 9000 they have \d+ parameters.*needs about .* GB"
    ):
        build(NetworkConfig(layers="9000-9000"), SHAPE, CLASSES)
