"""Where a tool that reads instead of watching exports another network: resets, shared layers, order, branches."""

import copy

import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import nn

from tests.export.own.base import B, Two, loud, own, spikes


class Loop(Two):
    """Two layers; `first` and `second` make a step of each of what comes in."""

    def first(self, x, mem, t):
        return self.lif1(self.fc1(x), mem)

    def second(self, x, mem, t):
        return self.lif2(self.fc2(x), mem)

    def forward(self, x):
        mem1, mem2, out = torch.zeros(x.shape[1], len(self.fc1.bias)), torch.zeros(x.shape[1], len(self.fc2.bias)), []
        for t, step in enumerate(x):
            spk, mem1 = self.first(step, mem1, t)
            spk, mem2 = self.second(spk, mem2, t)
            out.append(spk)
        return torch.stack(out)


@own()
def one_of_two_states_is_reset_in_every_step():
    class Net(Loop):
        def second(self, x, mem, t):
            return self.lif2(self.fc2(x), self.lif2.init_leaky())
    return Net(), spikes(20)


@own()
def synapse_that_is_not_handed_back():
    """syn begins at zero in every step, mem does not: a Synaptic that is a Leaky."""
    class Net(Loop):
        def __init__(self):
            super().__init__()
            self.lif1 = snn.Synaptic(0.7, 0.9)

        def first(self, x, mem, t):
            spk, _, mem = self.lif1(self.fc1(x), torch.zeros(x.shape[0], 24), mem)
            return spk, mem
    return Net(), spikes(20)


@own()
def recurrent_layer_that_is_told_it_was_silent():
    """Its spikes are not handed back, so its bias is all that comes of its recurrence."""
    class Net(Loop):
        def __init__(self):
            super().__init__()
            self.lif1 = snn.RLeaky(0.9, linear_features=24)

        def first(self, x, mem, t):
            return self.lif1(self.fc1(x), torch.zeros(x.shape[0], 24), mem)
    return Net(), spikes(20)


@own()
def recurrent_layer_made_anew_in_every_step():
    class Net(Loop):
        def __init__(self):
            super().__init__()
            self.lif1 = snn.RSynaptic(0.7, 0.9, linear_features=24, threshold=0.5)

        def first(self, x, mem, t):
            spk, *_ = self.lif1(self.fc1(x), *self.lif1.init_rsynaptic())
            return spk, mem
    return Net(), spikes(20)


@own("its state 'mem' comes from 'mem' of 'lif2'")
def states_in_the_wrong_order():
    class Net(Two):
        def __init__(self):
            super().__init__(h=6)

        def forward(self, x):
            mem1, mem2, out = torch.zeros(x.shape[1], 6), torch.zeros(x.shape[1], 6), []
            for step in x:
                spk, new = self.lif1(self.fc1(step), mem1)
                spk, mem1 = self.lif2(self.fc2(spk), mem2)
                mem2 = new
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)


@own("made anew in step")
def reset_where_a_pause_begins():
    class Net(Loop):
        def first(self, x, mem, t):
            return self.lif1(self.fc1(x), self.lif1.init_leaky() if t == 5 else mem)
    return Net(), spikes(20)


@own("into Python")
def state_that_is_reset_when_many_fire():
    class Net(Loop):
        def first(self, x, mem, t):
            spk, mem = super().first(x, mem, t)
            return spk, mem * 0 if spk.mean() > 0.3 else mem
    return Net(), spikes(20)


@own("comes from operation 'mul'")
def membranes_of_those_that_fire_next_door_are_emptied():
    class Net(Loop):
        def first(self, x, mem, t):
            spk, mem = super().first(x, mem, t)
            return spk, mem * (1 - spk.roll(1, 1))
    return Net(), spikes(20)


@own()
def layers_in_another_order_than_they_are_held():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(20, 20) for _ in range(3)])
            self.lifs = nn.ModuleList([snn.Leaky(beta) for beta in (0.9, 0.5, 0.7)])
            self.order = [2, 0, 1]
            loud(self)

        def forward(self, x):
            mems, out = [lif.init_leaky() for lif in self.lifs], []
            for step in x:
                for place in self.order:
                    step, mems[place] = self.lifs[place](self.layers[place](step), mems[place])
                out.append(step)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def copies_that_share_their_weights():
    class Net(Loop):
        def __init__(self):
            super().__init__(h=20, o=20)
            self.fc2 = nn.Linear(20, 20)
            self.fc2.weight, self.fc2.bias = self.fc1.weight, self.fc1.bias
    return Net(), spikes(20)


@own("the steps are not the same")
def weights_of_each_step_s_own():
    class Net(Loop):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(copy.deepcopy(self.fc2) for _ in range(11))

        def second(self, x, mem, t):
            return self.lif2(self.parts[t](x), mem)
    return Net(), spikes(20)


@own("gives another constant in step 1")
def threshold_that_falls_with_time():
    class Net(Loop):
        def second(self, x, mem, t):
            return self.lif2(self.fc2(x) + torch.full((6,), 0.1 * t), mem)
    return Net(), spikes(20)


@own("drops at inference")
def dropout_by_its_function_left_on():
    class Net(Loop):
        def second(self, x, mem, t):
            return self.lif2(self.fc2(nn.functional.dropout(x, 0.5)), mem)
    return Net(), spikes(20)


@own()
def dropout_in_training_alone():
    class Net(Loop):
        def second(self, x, mem, t):
            return self.lif2(self.fc2(nn.functional.dropout(x, 0.5, self.training)), mem)
    return Net().train(), spikes(20)


@own("at random")
def noise_on_the_current():
    class Net(Loop):
        def first(self, x, mem, t):
            return self.lif1(self.fc1(x) + 0.1 * torch.randn(B, 24), mem)

        def second(self, x, mem, t):
            return self.lif2(self.fc2(x) + 0.1 * torch.randn_like(x[:, :6]), mem)
    return Net(), spikes(20)


@own()
def a_skip_that_jumps_a_step():
    """The second layer hears what came in one step before."""
    class Net(Two):
        def __init__(self):
            super().__init__(h=20, o=20)

        def forward(self, x):
            mem1, mem2, last, out = self.lif1.init_leaky(), self.lif2.init_leaky(), torch.zeros(x.shape[1], 20), []
            for step in x:
                spk, mem1 = self.lif1(self.fc1(step), mem1)
                spk, mem2 = self.lif2(self.fc2(spk) + last, mem2)
                last = spk
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def adaptation_by_the_last_spike():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, spk, out = self.lif1.init_leaky(), self.lif2.init_leaky(), torch.zeros(x.shape[1], 24), []
            for step in x:
                spk, mem1 = self.lif1(self.fc1(step) - 0.5 * spk, mem1)
                last, mem2 = self.lif2(self.fc2(spk), mem2)
                out.append(last)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def adaptation_kept_outside_of_neurons():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            trace = spk = torch.zeros(x.shape[1], 24)
            for step in x:
                trace = 0.9 * trace + 0.1 * spk
                spk, mem1 = self.lif1(self.fc1(step) - 1.8 * trace, mem1)
                last, mem2 = self.lif2(self.fc2(spk), mem2)
                out.append(last)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def membranes_drive_the_next_layer():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                _, mem1 = self.lif1(self.fc1(step), mem1)
                spk, mem2 = self.lif2(self.fc2(mem1), mem2)
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def a_hook_that_halves():
    class Net(Loop):
        def __init__(self):
            super().__init__()
            self.fc2.register_forward_hook(lambda module, given, result: result * 0.5)
    return Net(), spikes(20)


@own()
def leaks_written_after_it_was_made():
    network = Loop()
    network.lif1.beta = torch.rand(24)
    network.lif2.threshold.fill_(0.4)
    return network, spikes(20)


@own("reset_mechanism is 'zero', but it was made with 'subtract'")
def reset_mechanism_written_after_it_was_made():
    network = Loop()
    network.lif1.reset_mechanism = "zero"
    return network, spikes(20)


@own("does not hold")
def neuron_made_in_forward():
    class Net(Loop):
        def second(self, x, mem, t):
            return snn.Leaky(0.9)(self.fc2(x), torch.zeros(x.shape[0], 6))
    return Net(), spikes(20)


@own("is no step function")
def spikes_between_none_and_one():
    network = Loop()
    network.lif1.spike_grad = lambda x: torch.sigmoid(5 * x)
    return network, spikes(20)


@own()
def spikes_that_are_random_backwards_alone():
    network = Loop()
    network.lif1.spike_grad = surrogate.SSO()
    return network, spikes(20)


@own("takes the larger of signals that are not all spikes")
def the_larger_of_spikes_and_input():
    class Net(Loop):
        def __init__(self):
            super().__init__(h=20)

        def first(self, x, mem, t):
            spk, mem = super().first(x, mem, t)
            return torch.maximum(spk, x), mem
    return Net(), spikes(20)


@own("no operation in sight made it")
def a_layer_mapped_over_the_batch():
    class Net(Loop):
        def first(self, x, mem, t):
            return self.lif1(torch.vmap(lambda sample: self.fc1.weight @ sample)(x), mem)
    return Net(), spikes(20)


@own("layer 'fc2' .RecursiveScriptModule.: NIR has no such operation; it is compiled")
def a_layer_that_is_compiled():
    network = Loop()
    network.fc2 = torch.jit.script(network.fc2)
    return network, spikes(20)


@own()
def reset_before_and_behind():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = loud(nn.Sequential(nn.Linear(20, 16), snn.Leaky(0.9, init_hidden=True), nn.Linear(16, 4),
                                          snn.Leaky(0.9, init_hidden=True, output=True)))

        def forward(self, x):
            utils.reset(self.net)
            out = [self.net(step)[0] for step in x]
            utils.reset(self.net)
            return torch.stack(out)
    return Net(), spikes(20)
