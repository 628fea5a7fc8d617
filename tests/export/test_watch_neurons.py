"""Every setting of snnTorch's neurons: exact in NIR against a run of its own in float64, and on a chip or refused."""

import itertools
from dataclasses import dataclass

import pytest
import snntorch as snn
import torch
from snntorch.functional import quant
from torch import nn

from export.formats.nir import write_checked
from export.passes.lower import lower
from hardspike import HardspikeError
from targets import reference
from targets.graph import read
from targets.loihi.chips import LOIHI2
from tests.export.own import loud
from tests.export.own.base import own_run

N, T, B = 8, 9, 4
STATES = {"leaky": ("mem",), "lapicque": ("mem",), "synaptic": ("syn", "mem"), "alpha": ("syn_exc", "syn_inh", "mem"),
          "rleaky": ("spk", "mem"), "rsynaptic": ("spk", "syn", "mem")}


@dataclass(frozen=True)
class Case:
    """One setting; `forgets`: the states that forward makes anew in every step."""

    kind: str
    reset: str
    delay: bool = True
    recurrent: str = ""
    forgets: tuple[str, ...] = ()
    values: str = "one"
    hidden: bool = False
    inhibition: bool = False

    def __str__(self):
        return "-".join(str(value) for value in vars(self).values() if value not in ("", ()))

    def refused(self) -> str | None:
        """Why NIR cannot hold it."""
        if self.kind == "alpha" and {"syn_exc", "syn_inh"} <= set(self.forgets):
            return "never fires"
        if "mem" in self.forgets or self.reset == "none":
            return None
        if self.kind == "alpha":
            return "empties two currents at once"
        if self.inhibition and not (self.reset == "subtract" and self.delay):
            return "compares membranes"
        return None

    def lacking(self) -> str | None:
        """What of it a chip lacks."""
        if self.inhibition:
            return "compare their membranes" if self.kind != "alpha" else "sum of several currents"
        if self.kind == "alpha":
            return "sum of several currents"
        if "mem" in self.forgets:
            return None
        if self.reset == "none":
            return "is never reset"
        if self.reset == "subtract" and not self.delay:
            return "takes its threshold off in the step of the spike"
        if self.reset == "zero" and self.delay and self.kind != "leaky":
            return "loses what comes in in the step after a spike"
        return None


def cases() -> list[Case]:
    """All that snnTorch runs; `forgets`, `values` and `inhibition` one at a time."""
    found = []
    for kind, states in STATES.items():
        delays = (True, False) if kind in ("leaky", "synaptic", "rleaky") else (True,)
        recurrents = ("linear", "conv", "one V", "V") if kind[0] == "r" else ("",)
        for reset, delay, recurrent in itertools.product(("subtract", "zero", "none"), delays, recurrents):
            one = (kind, reset, delay, recurrent)
            found += [Case(*one), Case(*one, hidden=True), Case(*one, values="many"), Case(*one, values="learned")]
            found += [Case(*one, forgets=some) for k in range(1, len(states) + 1)
                      for some in itertools.combinations(states, k)]
            if recurrent != "conv":
                found.append(Case(*one, inhibition=True))
            if kind == "leaky":
                found.append(Case(*one, values="graded"))
    return found


def neuron(case: Case) -> snn.SpikingNeuron:
    """As its user makes it."""
    many = case.values != "one"
    shape = (2, 1, 1) if case.recurrent == "conv" else (N,)
    beta = 0.2 + 0.7 * torch.rand(shape) if many else 0.85
    options = {"threshold": 0.2 + torch.rand(shape) if many else 0.6, "reset_mechanism": case.reset,
               "init_hidden": case.hidden, "inhibition": case.inhibition}
    if case.values == "learned":
        options |= {"learn_threshold": True, "learn_beta": True}
    if case.values == "graded":
        options |= {"graded_spikes_factor": torch.rand(shape) - 1.5, "learn_graded_spikes_factor": True}
    if case.kind not in ("lapicque", "alpha"):
        options["reset_delay"] = case.delay
    if case.recurrent:
        options |= {"linear": {"linear_features": N}, "conv": {"conv2d_channels": 2, "kernel_size": 3},
                    "one V": {"all_to_all": False, "V": 0.7},
                    "V": {"all_to_all": False, "V": torch.rand(N) - 0.5}}[case.recurrent]
    alpha = 0.2 + 0.7 * torch.rand(shape) if many else 0.6
    if case.kind == "alpha":
        return snn.Alpha((beta + 1) / 2 if many else 0.9, beta, **options)
    if case.kind == "lapicque":
        return snn.Lapicque(beta=float(torch.as_tensor(beta).mean()), time_step=1, **options)
    return {"leaky": lambda: snn.Leaky(beta, **options), "rleaky": lambda: snn.RLeaky(beta, **options),
            "synaptic": lambda: snn.Synaptic(alpha, beta, **options),
            "rsynaptic": lambda: snn.RSynaptic(alpha, beta, **options)}[case.kind]()


class Net(nn.Module):
    """A layer, the neuron with its states handed round, and what hears it."""

    def __init__(self, case: Case):
        super().__init__()
        self.forgets = [role in case.forgets for role in STATES[case.kind]]
        self.picture = case.recurrent == "conv"
        self.fc = nn.Conv2d(1, 2, 3, padding=1) if self.picture else nn.Linear(10, N)
        self.lif = neuron(case)
        self.fc2, self.lif2 = nn.Linear(18 if self.picture else N, 4), snn.Leaky(0.9)
        loud(self, 4.0 if case.kind != "lapicque" else 12.0)

    def fresh(self) -> list[torch.Tensor]:
        states = self.lif.reset_mem()
        return list(states) if isinstance(states, tuple) else [states]

    def forward(self, x):
        states, last, out = self.fresh(), self.lif2.reset_mem(), []
        for step in x:
            if self.lif.init_hidden:
                spk = self.lif(self.fc(step))
            else:
                if any(self.forgets):
                    states = [a if new else b for a, b, new in zip(self.fresh(), states, self.forgets, strict=True)]
                spk, *states = self.lif(self.fc(step), *states)
                states = [spk, *states] if len(states) < len(self.forgets) else states
            spk, last = self.lif2(self.fc2(spk.flatten(1)), last)
            out.append(spk)
        return torch.stack(out)


def samples(case: Case) -> torch.Tensor:
    return (torch.rand(T, B, *((1, 3, 3) if case.recurrent == "conv" else (10,))) < 0.5).float()


def assert_exact(case: Case, path) -> None:
    """Spike for spike, on samples that the export did not see, what the network itself does."""
    torch.manual_seed(3)
    network, x, others = Net(case), samples(case), samples(case)
    if case.refused():
        with pytest.raises(HardspikeError, match=rf"'lif' .*{case.refused()}"):
            write_checked(network, x, path)
        return
    write_checked(network, x, path)
    mine, theirs = own_run(network, others), reference.run(read(path), others).spikes
    assert mine["lif"].sum() > 5, "silent"
    for name, spikes in mine.items():
        assert torch.equal(theirs[name].flatten(2) != 0, spikes.flatten(2)), name


ALL = cases()


@pytest.mark.parametrize("case", ALL[::11], ids=str)
def test_settings_are_exact(case, tmp_path):
    assert_exact(case, tmp_path / "a.nir")


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=str)
def test_every_setting_is_exact_and_on_a_chip_or_refused_for_what_that_lacks(case, tmp_path):
    assert_exact(case, tmp_path / "a.nir")
    if case.refused():
        return
    graph, x = read(tmp_path / "a.nir"), samples(case)
    if case.lacking():
        with pytest.raises(HardspikeError, match=case.lacking()):
            lower(graph, x, LOIHI2, scale="max_abs")
        return
    integer, _ = lower(graph, x, LOIHI2)
    mine, theirs = reference.run(graph, x).spikes["lif"], LOIHI2.run(integer, x).spikes["lif"].reshape(
        reference.run(graph, x).spikes["lif"].shape)
    assert theirs.any() and int((mine != theirs).sum()) < 0.25 * int(mine.sum()) + 4


def test_a_state_that_is_rounded_is_refused(tmp_path):
    network = Net(Case("leaky", "subtract"))
    network.lif.state_quant = quant.state_quant(num_bits=4, uniform=True, threshold=1.0)
    with pytest.raises(HardspikeError, match=r"'lif' .*state_quant rounds .*train without, and quantise the graph"):
        write_checked(network, samples(Case("leaky", "subtract")), tmp_path / "a.nir")
    network.lif.state_quant = False
    assert write_checked(network, samples(Case("leaky", "subtract")), tmp_path / "a.nir").mismatches == 0


class NotDelayed(nn.Module):
    """RSynaptic with reset_delay=False, which snnTorch 1.0 runs where it is handed spikes of its input's shape."""

    def __init__(self, reset: str):
        super().__init__()
        self.fc = nn.Linear(10, N)
        self.lif = snn.RSynaptic(0.6, 0.85, linear_features=N, threshold=0.5, reset_mechanism=reset, reset_delay=False)
        loud(self)

    def forward(self, x):
        spk, syn, mem, out = *torch.zeros(3, x.shape[1], N), []
        for step in x:
            spk, syn, mem = self.lif(self.fc(step), spk, syn, mem)
            out.append(spk)
        return torch.stack(out)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_rsynaptic_without_delay_runs_as_with_it(reset, tmp_path):
    network, x = NotDelayed(reset), samples(Case("leaky", "none"))
    write_checked(network, x, tmp_path / "a.nir")
    mine, theirs = own_run(network, x)["lif"], reference.run(read(tmp_path / "a.nir"), x).spikes["lif"]
    assert torch.equal(mine, theirs != 0) and mine.sum() > 20


class Reads(nn.Module):
    """Gives out a state of its last layer."""

    def __init__(self, last: snn.SpikingNeuron, role: int, anew: bool = False):
        super().__init__()
        self.fc1, self.lif1, self.fc2, self.last = nn.Linear(10, N), snn.Leaky(0.9), nn.Linear(N, 3), last
        self.role, self.anew = role, anew
        loud(self)

    def states(self):
        states = self.last.reset_mem()
        return states if isinstance(states, tuple) else (states,)

    def forward(self, x):
        mem, states, out = self.lif1.reset_mem(), self.states(), []
        for step in x:
            spk, mem = self.lif1(self.fc1(step), mem)
            _, *states = self.last(self.fc2(spk), *(self.states() if self.anew else states))
            out.append(states[self.role])
        return torch.stack(out)


@pytest.mark.parametrize(("last", "role", "anew", "words"), [
    (snn.Leaky(0.8, reset_delay=False), 0, False, "mem of 'last'"),
    (snn.Synaptic(0.6, 0.8), 0, False, "syn of 'last'"), (snn.Synaptic(0.6, 0.8, reset_delay=False), 1, False, "mem"),
    (snn.Alpha(0.9, 0.8, reset_mechanism="none"), 2, False, "mem of 'last'"),
    (snn.Alpha(0.9, 0.8, reset_mechanism="none"), 1, False, "syn_inh of 'last'"),
    (snn.Leaky(0.8, reset_mechanism="zero"), 0, True, "mem of 'last'"),
    (snn.Leaky(0.8, reset_delay=False), 0, True, "mem of 'last'"),
    (snn.Leaky(0.0, reset_mechanism="none"), 0, False, "mem"),
])
def test_states_that_are_read_are_carried(last, role, anew, words, tmp_path):
    """The Output is the state as forward reads it, in float64."""
    network, x = Reads(last, role, anew), samples(Case("leaky", "none"))
    verdict = write_checked(network, x, tmp_path / "a.nir").verdict()
    assert f"Output gives {words}" in verdict
    output = reference.run(read(tmp_path / "a.nir"), x).output
    with torch.no_grad():
        torch.testing.assert_close(output.float(), network(x).reshape(output.shape), rtol=1e-4, atol=1e-4)
    assert output.abs().max() > 0.5


@pytest.mark.parametrize(("last", "role", "anew"), [
    (snn.Leaky(0.8, reset_mechanism="zero"), 0, False), (snn.Synaptic(0.6, 0.8, reset_mechanism="zero"), 1, False),
    (snn.Leaky(0.8, reset_mechanism="zero", reset_delay=False), 0, True)])
def test_states_inside_of_a_nir_neuron_are_refused(last, role, anew, tmp_path):
    """And as it is advised, with another reset, they are read."""
    network, x = Reads(last, role, anew), samples(Case("leaky", "none"))
    with pytest.raises(HardspikeError, match=r"'last' .*inside a NIR neuron; .*reset_mechanism 'none' or 'subtract'"):
        write_checked(network, x, tmp_path / "a.nir")
    kind = type(last)
    made = kind(0.6, 0.8) if kind is snn.Synaptic else kind(0.8)
    assert write_checked(Reads(made, role, anew), x, tmp_path / "a.nir").mismatches == 0


SEQUENCES = [snn.StateLeaky(0.8, N), snn.LinearLeaky(0.8, N, N), snn.AssociativeLeaky(N, 2, 4, N),
             snn.SLSTM(N, N), snn.SConv2dLSTM(1, 1, 3), snn.DeltaLeaky(beta=0.8)]


@pytest.mark.parametrize("neuron", SEQUENCES, ids=lambda neuron: type(neuron).__name__)
def test_neurons_without_a_form_are_refused_by_name(neuron, tmp_path):
    class Uses(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.odd, self.fc2, self.lif = nn.Linear(10, N), neuron, nn.Linear(N, 3), snn.Leaky(0.9)

        def forward(self, x):
            x = self.odd(self.fc(x))
            mem, out = self.lif.reset_mem(), []
            for step in self.fc2(x[0] if isinstance(x, tuple) else x):
                spk, mem = self.lif(step, mem)
                out.append(spk)
            return torch.stack(out)

    kind = type(neuron).__name__
    with pytest.raises(HardspikeError, match=rf"layer 'odd' \({kind}\): NIR has no such operation; .*(use|train)"):
        write_checked(Uses(), samples(Case("leaky", "none")), tmp_path / "a.nir")


def test_advice_about_stateleaky_is_followed(tmp_path):
    """A Leaky with beta=exp(beta - 1), which is what StateLeaky computes, spikes alike."""
    x, fc, beta = samples(Case("leaky", "none")), nn.Linear(10, N), 0.8
    fc.weight.data *= 3
    with torch.no_grad():
        wanted, _ = snn.StateLeaky(beta, N)(fc(x))
    network = nn.Sequential(fc, snn.Leaky(torch.exp(torch.tensor(beta - 1)), reset_mechanism="none", init_hidden=True))
    write_checked(network, x, tmp_path / "a.nir")
    assert torch.equal(reference.run(read(tmp_path / "a.nir"), x).spikes["1"], wanted.double()) and wanted.sum() > 20
