"""Which of what forward returns is the Output: asked for, or seen and said; all of it is compared."""

import re

import pytest
import snntorch as snn
import torch
from torch import nn

from export.__main__ import COMMANDS
from export.nir_file import write_checked
from export.passes.lower import fold, lower
from hardspike import HardspikeError, UsageError, run
from targets import reference
from targets.graph import read
from targets.loihi.chips import LOIHI2
from tests.export.own import Two, loud, spikes


class Returns(Two):
    """Two layers; `make` gives what forward returns of their recordings, (T, B, ...) each."""

    def __init__(self, make, **options):
        super().__init__(**options)
        self.make = make

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        kept = {"spk1": [], "mem1": [], "spk2": [], "mem2": []}
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            for key, value in zip(kept, (spk1, mem1, spk2, mem2), strict=True):
                kept[key].append(value)
        return self.make({key: torch.stack(values) for key, values in kept.items()})


def exported(network, x, path, **options):
    """The verdict, and what the file's Output gives."""
    verdict = write_checked(network, x, path, **options).verdict()
    return verdict, reference.run(read(path), x).output


@pytest.mark.parametrize(("make", "key", "words"), [
    (lambda r: (r["spk2"], r["mem2"]), "spk2", r"spikes of 'lif2', \[0\] of what .* another\): \[1\], mem of 'lif2'"),
    (lambda r: (r["spk1"], r["spk2"]), "spk2", r"spikes of 'lif2', \[1\] of what .* \[0\], the spikes of 'lif1'"),
    (lambda r: {"hidden": [r["spk1"], r["mem1"]], "out": r["mem2"]}, "mem2", r"mem of 'lif2', \[out\].*\[hidden.0\]"),
    (lambda r: (r["mem1"], r["mem2"], r["spk2"]), "mem2", r"mem of 'lif2', \[1\].*\[0\], mem of 'lif1'; \[2\]"),
    (lambda r: r["spk2"].sum(0), "spk2", r"spikes of 'lif2' \(the host does the rest: sum, stack\)"),
])
def test_the_last_layer_s_first_result_is_the_output(make, key, words, tmp_path):
    network, x = Returns(make), spikes(20)
    wanted = Returns(lambda r: r[key])
    wanted.load_state_dict(network.state_dict())
    verdict, output = exported(network, x, tmp_path / "a.nir")
    assert re.search(words, verdict), verdict
    torch.testing.assert_close(output.float(), wanted(x).detach(), rtol=0, atol=1e-4)


def test_another_one_is_asked_for_by_place_or_key(tmp_path, capsys):
    network, x = Returns(lambda r: {"spk": r["spk2"], "seen": (r["spk1"], r["mem2"])}), spikes(20)
    kept = network(x)
    for name, wanted in (("spk", kept["spk"]), ("seen.0", kept["seen"][0]), ("seen.1", kept["seen"][1]),
                         ("spk, seen.1", torch.cat([kept["spk"], kept["seen"][1]], 2))):
        _, output = exported(network, x, tmp_path / "a.nir", result=name)
        torch.testing.assert_close(output.float(), wanted.detach(), rtol=0, atol=1e-4)
    with pytest.raises(UsageError, match=r"'seen.2': .* spk \(the spikes of 'lif2'\), seen.0"):
        write_checked(network, x, tmp_path / "b.nir", result="seen.2")
    assert not (tmp_path / "b.nir").exists()
    assert run("export", COMMANDS, ["nir", f"{tmp_path}/best.pt", "--result", "1"]) == 2
    assert "networks of your own" in capsys.readouterr().err


def test_a_result_of_two_layers_needs_both(tmp_path):
    """Their features side by side, for a head that hears both."""
    network, x = Returns(lambda r: torch.cat([r["spk1"], r["spk2"]], 2).mean(0)), spikes(20)
    verdict, output = exported(network, x, tmp_path / "a.nir")
    assert "Output gives the spikes of 'lif1' and the spikes of 'lif2' (the host" in verdict
    torch.testing.assert_close(output.mean(0).float(), network(x).detach())
    graph = read(tmp_path / "a.nir")
    whole, _ = lower(graph, x, LOIHI2, scale="max_abs")
    assert torch.equal(reference.run(fold(graph), x).output, output) and LOIHI2.run(whole, x).output.shape[-1] == 30


def test_a_state_inside_of_a_neuron_gives_way(tmp_path):
    network, x = Returns(lambda r: (r["mem2"], r["spk2"]), reset_mechanism="zero"), spikes(20)
    verdict, output = exported(network, x, tmp_path / "a.nir")
    assert "spikes of 'lif2', [1] of what forward returns" in verdict and "inside a NIR neuron" in verdict
    assert torch.equal(output.float(), network(x)[1])
    with pytest.raises(HardspikeError, match="inside a NIR neuron"):
        write_checked(network, x, tmp_path / "b.nir", result="0")


def test_the_last_layer_where_it_feeds_back(tmp_path):
    """The second layer's spikes reach the first one a step later: within a step it is the last all the same."""
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.back = nn.Linear(6, 24)
            loud(self.back)

        def forward(self, x):
            mem1, mem2, spk2 = self.lif1.init_leaky(), self.lif2.init_leaky(), torch.zeros(x.size(1), 6)
            hidden, out = [], []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step) + self.back(spk2), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                hidden.append(spk1)
                out.append(spk2)
            return torch.stack(hidden), torch.stack(out)

    network, x = Net(), spikes(20)
    _, output = exported(network, x, tmp_path / "a.nir")
    assert torch.equal(output.float(), network(x)[1])


def test_states_after_the_output_step_by_step(tmp_path):
    class Net(Two):
        def forward(self, x, mem1, mem2):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            return spk2, mem1, mem2

    verdict, output = exported(Net(), spikes(20), tmp_path / "a.nir")
    assert "[0] of what forward returns" in verdict and output.shape[-1] == 6


def test_two_heads_are_both_had_in_a_row(tmp_path):
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.fc3, self.lif3 = nn.Linear(24, 2), snn.Leaky(0.9, reset_mechanism="none")
            loud(self.fc3)

        def forward(self, x):
            mem1, mem2, mem3 = (n.init_leaky() for n in (self.lif1, self.lif2, self.lif3))
            classes, boxes = [], []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                _, mem3 = self.lif3(self.fc3(spk1), mem3)
                classes.append(spk2)
                boxes.append(mem3)
            return torch.stack(classes), torch.stack(boxes)

    network, x = Net(), spikes(20)
    verdict, _ = exported(network, x, tmp_path / "a.nir")
    assert "'lif2', [0]" in verdict and "[1], mem of 'lif3'" in verdict
    _, output = exported(network, x, tmp_path / "a.nir", result="0,1")
    torch.testing.assert_close(output.float(), torch.cat(network(x), 2).detach(), rtol=0, atol=1e-4)
    whole, _ = lower(read(tmp_path / "a.nir"), x, LOIHI2, scale="max_abs")
    assert LOIHI2.run(whole, x).output.shape[-1] == 8
