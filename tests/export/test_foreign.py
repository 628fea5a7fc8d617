"""What is given in place of a model: weights, code, nothing; what is said leads on."""

from pathlib import Path

import pytest
import torch
from torch import nn

from export.__main__ import COMMANDS
from export.foreign import of_fit
from hardspike import run
from targets.__main__ import COMMANDS as TARGETS

ROOT = Path(__file__).resolve().parents[2]
CODE = '''
raise SystemExit("this file is never run")
import lightning
from torch import nn

class Net(nn.Module):
    pass

class Lit(lightning.LightningModule):
    def __init__(self, width=5):
        pass

class Child(Net):
    def __init__(self, width):
        pass

class Dataset:
    pass

def make(width=3):
    return Child(width)

def train(net):
    return net

def _private():
    return Net()

ready = nn.Sequential(nn.Linear(2, 2))
'''
WAY = "`hardspike export nir FILE.py:NAME --input spikes.npz`, where NAME makes it and loads these weights"


def said(capsys, *arguments, package="export", commands=COMMANDS) -> tuple[int, str]:
    status = run(package, commands, [str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return status, error


@pytest.mark.parametrize("command", ["nir", "quantise", "onnx", "c"])
def test_weights_of_other_programs_lead_to_code(command, tmp_path, capsys):
    network = nn.Linear(3, 2)
    torch.save(network.state_dict(), tmp_path / "state.pt")
    torch.save(network, tmp_path / "whole.pt")
    torch.save(network.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "lightning.ckpt")
    for name in ("state.pt", "whole.pt", "old.pt", "lightning.ckpt"):
        status, error = said(capsys, command, tmp_path / name)
        assert status in (1, 2) and WAY in error


def test_a_damaged_checkpoint_of_ours_is_no_other_programs(tmp_path):
    torch.save({"config": {}, "network": {}, "slope": 1.0, "diagnostics": []}, tmp_path / "a.pt")
    assert of_fit(tmp_path / "a.pt")


@pytest.mark.parametrize("command", ["nir", "quantise", "c"])
def test_code_without_a_name_says_the_names_that_it_has(command, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(CODE)
    status, error = said(capsys, command, tmp_path / "mine.py")
    assert status == 2 and "mine.py:Net --input" in error and "that could be Net, Lit, ready, make" in error
    (tmp_path / "mine.py").write_text("def broken(:")
    status, error = said(capsys, command, tmp_path / "mine.py")
    assert status == 2 and "mine.py:NAME --input" in error


def test_a_network_of_ones_own_is_written_first(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(CODE)
    status, error = said(capsys, "quantise", f"{tmp_path}/mine.py:Net")
    assert status == 2 and f"`hardspike export nir {tmp_path}/mine.py:Net --input spikes.npz`" in error
    status, error = said(capsys, "check", f"{tmp_path}/mine.py:Net", package="targets", commands=TARGETS)
    assert status == 2 and "hardspike export nir FILE.py:NAME" in error


@pytest.mark.parametrize("name", ["nothing", "nothing.pt", "nothing.nir", "nothing.ckpt", "nothing.py", "nothing.txt"])
def test_a_path_that_is_not_there_is_said_so_by_all(name, tmp_path, capsys):
    for command in ("nir", "quantise", "onnx", "c", "lava"):
        status, error = said(capsys, command, tmp_path / name)
        assert status == 1 and f"{name}: no such file or folder" in error
    for command in ("check", "map", "bench"):
        status, error = said(capsys, command, tmp_path / name, package="targets", commands=TARGETS)
        assert status == 1 and f"{name}: no such file or folder" in error


@pytest.mark.parametrize("base", ["a" + ".a" * 700, "f(" * 150 + ")" * 150, "-" * 900 + "1", "a" + "+a" * 5000])
def test_code_that_is_nested_deep_is_one_line(base, tmp_path, capsys):
    (tmp_path / "deep.py").write_text(f"class A({base}):\n    pass\n")
    status, error = said(capsys, "nir", tmp_path / "deep.py")
    assert status == 2 and "deep.py: is code" in error
