"""A forward that fails: the error is that of the user's own call, with its line, and the way out exists."""

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn

from export.__main__ import COMMANDS
from export.nir_file import write_checked
from hardspike import HardspikeError, run


class Loops(nn.Module):
    """Takes (T, B, 1, 8, 8)."""

    def __init__(self, wide=256, between=lambda s: s):
        super().__init__()
        self.conv, self.lif1 = nn.Conv2d(1, 4, 3), snn.Leaky(beta=0.9)
        self.fc, self.lif2, self.between = nn.Linear(wide, 10), snn.Leaky(beta=0.9), between

    def step(self, x, mem1, mem2):
        spk, mem1 = self.lif1(self.conv(x), mem1)
        spk, mem2 = self.lif2(self.fc(self.between(spk).flatten(1)), mem2)
        return spk, mem1, mem2

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in x:
            spk, mem1, mem2 = self.step(step, mem1, mem2)
            out.append(spk)
        return torch.stack(out)


class Once(Loops):
    """Takes one step of it."""

    def forward(self, x, mem1=None, mem2=None):
        return self.step(x, self.lif1.init_leaky() if mem1 is None else mem1,
                         self.lif2.init_leaky() if mem2 is None else mem2)


class Flattened(nn.Module):
    """Either way it flattens to a batch of something."""

    def __init__(self, once):
        super().__init__()
        self.fc, self.lif, self.once = nn.Linear(63, 10), snn.Leaky(beta=0.9), once

    def forward(self, x):
        mem, out = self.lif.init_leaky(), []
        for step in [x] if self.once else x:
            spk, mem = self.lif(self.fc(step.flatten(1)), mem)
            out.append(spk)
        return torch.stack(out)


FRAMES = torch.ones(5, 6, 1, 8, 8)


def refused(network, tmp_path, **options) -> str:
    with pytest.raises(HardspikeError) as error:
        write_checked(network, FRAMES, tmp_path / "a.nir", **options)
    assert not list(tmp_path.glob("*.nir"))
    return str(error.value)


@pytest.mark.parametrize(("network", "said"), [
    (Loops(), "on an input of shape (5, 6, 1, 8, 8) (mat1 and mat2 shapes cannot be multiplied (6x144 and 256x10)"),
    (Once(), "on a step of shape (6, 1, 8, 8) (mat1 and mat2 shapes cannot be multiplied (6x144 and 256x10)"),
    (Flattened(False), "on an input of shape (5, 6, 1, 8, 8) (mat1 and mat2 shapes cannot be multiplied (6x64 and"),
    (Flattened(True), "on a step of shape (6, 1, 8, 8) (mat1 and mat2 shapes cannot be multiplied (6x64 and 63x10)")])
def test_the_error_is_that_of_the_call_most_like_the_users(network, said, tmp_path):
    found = refused(network, tmp_path)
    assert found.index(said) < found.index("was tried") and "in layer 'fc', test_watch_failed.py, line" in found


@pytest.mark.parametrize("kind", [Loops, Once])
@pytest.mark.parametrize(("between", "said"), [
    (lambda s: undefined(s), "NameError: name 'undefined' is not defined"),  # noqa: F821
    (lambda s: s.undefined, "AttributeError: 'Tensor' object has no attribute 'undefined'")])
def test_an_error_that_no_shape_mends_is_said_once(kind, between, said, tmp_path):
    found = refused(kind(144, between), tmp_path)
    assert found.count(said) == 1 and "test_watch_failed.py, line" in found
    assert "shape" not in found and "say steps" not in found


def test_the_same_error_of_both_calls_is_said_once(tmp_path):
    found = refused(Loops(144, lambda s: s + "a"), tmp_path)
    assert found.count("TypeError: unsupported operand") == 1 and "was tried" not in found


class NeedsState(Once):
    """Called once with all of it, it fails at a state that was not given, and not at its mistake."""

    def forward(self, x, mem1=None, mem2=None):
        if x.dim() == 5:
            mem1.detach()
        return super().forward(x, mem1, mem2)


def test_a_state_that_the_other_call_lacks_is_not_the_fault(tmp_path):
    found = refused(NeedsState(), tmp_path)
    assert "on a step of shape (6, 1, 8, 8) (mat1 and mat2 shapes" in found and "one step" not in found


def test_the_spelling_that_is_proposed_works_on_the_command_line(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from tests.export.test_watch_failed import Loops, Once\n"
        "Net = lambda: Once()\n"
        "def right():\n    made = Loops(144)\n    made.fc.weight.data += 1\n    made.conv.weight.data += 1\n"
        "    return made\n")
    np.savez(tmp_path / "x.npz", spikes=FRAMES.numpy())
    given = ["--input", str(tmp_path / "x.npz")]
    assert run("export", COMMANDS, ["nir", f"{tmp_path}/mine.py:Net", *given]) == 1
    assert "on the command line FILE.py:NAME:forward" in capsys.readouterr().err
    assert run("export", COMMANDS, ["nir", f"{tmp_path}/mine.py:right:forward", *given]) == 0


def test_code_that_fails_is_named_by_its_line(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("value = 1\n\ndef make():\n    return undefined\n")
    (tmp_path / "early.py").write_text("import nothing_of_this_name\n")
    np.savez(tmp_path / "x.npz", spikes=FRAMES.numpy())
    for name, line in (("mine.py:make", "mine.py, line 4"), ("early.py:make", "early.py, line 1")):
        assert run("export", COMMANDS, ["nir", f"{tmp_path}/{name}", "--input", str(tmp_path / "x.npz")]) == 1
        assert line in capsys.readouterr().err


@pytest.mark.parametrize("source", ["from trainer import load_mine\n",
                                    "import trainer\nmake = lambda: trainer.net()\n"])
def test_a_file_beside_it_with_the_name_of_a_package_of_ours_is_named(source, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(source)
    np.savez(tmp_path / "x.npz", spikes=FRAMES.numpy())
    arguments = ["nir", f"{tmp_path}/mine.py:make", "--input", str(tmp_path / "x.npz")]
    assert run("export", COMMANDS, arguments) == 1
    assert "rename it" not in capsys.readouterr().err
    (tmp_path / "trainer.py").write_text("net = load_mine = None\n")
    assert run("export", COMMANDS, arguments) == 1
    assert "your trainer.py has the name of a package of hardspike: rename it" in capsys.readouterr().err
