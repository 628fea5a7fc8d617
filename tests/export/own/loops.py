"""Loops over time and readouts, as tutorials and projects write them."""

import itertools
from dataclasses import dataclass

import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import nn
from torch.nn import functional as F

from tests.export.own.base import B, T, Two, loud, own, spikes


@own()
def tutorial3_two_layers_step_outside():
    class Net(Two):
        def forward(self, x, mem1, mem2):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            return spk2, mem1, mem2
    return Net(), spikes(20)


@own()
def tutorial5_static_num_steps():
    class Net(Two):
        def forward(self, x, num_steps=T):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            spk_rec, mem_rec = [], []
            for _ in range(num_steps):
                spk1, mem1 = self.lif1(self.fc1(x), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                spk_rec.append(spk2)
                mem_rec.append(mem2)
            return torch.stack(spk_rec, dim=0), torch.stack(mem_rec, dim=0)
    return Net(), (torch.rand(B, 20), 9)


@own()
def tutorial5_reset_mem_and_flatten():
    class Net(Two):
        def forward(self, x):
            mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
            out = []
            for _ in range(T):
                cur1 = self.fc1(x.flatten(1))
                spk1, mem1 = self.lif1(cur1, mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), torch.rand(B, 1, 4, 5)


@own()
def tutorial6_convolution_average_pooled():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.lif1 = nn.Conv2d(1, 4, 5), snn.Leaky(beta=0.5, spike_grad=surrogate.fast_sigmoid(25))
            self.conv2, self.lif2 = nn.Conv2d(4, 6, 3), snn.Leaky(beta=0.5, spike_grad=surrogate.fast_sigmoid(25))
            self.fc1, self.lif3 = nn.Linear(6 * 2 * 2, 5), snn.Leaky(beta=0.5)
            loud(self, 5)

        def forward(self, x):
            mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
            spk_rec = []
            for step in range(x.shape[0]):
                spk1, mem1 = self.lif1(F.avg_pool2d(self.conv1(x[step]), 2), mem1)
                spk2, mem2 = self.lif2(F.avg_pool2d(self.conv2(spk1), 2), mem2)
                spk3, mem3 = self.lif3(self.fc1(spk2.view(x.shape[1], -1)), mem3)
                spk_rec.append(spk3)
            return torch.stack(spk_rec)
    return Net(), spikes(1, 16, 16)


@own()
def tutorial7_sequential_max_pooling_of_spikes():
    k = {"beta": 0.5, "init_hidden": True}
    return loud(nn.Sequential(nn.Conv2d(2, 4, 5), snn.Leaky(**k), nn.MaxPool2d(3, stride=2, padding=1),
                              nn.Conv2d(4, 4, 3), snn.Leaky(**k), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5),
                              snn.Leaky(**k, output=True))), spikes(2, 16, 16)


@own()
def forward_pass_function_style():
    """The tutorials' forward_pass(net, data): utils.reset before, one call a step, inside a module of its own."""
    k = {"beta": 0.5, "init_hidden": True}

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = loud(nn.Sequential(nn.Linear(20, 16), snn.Leaky(**k), nn.Linear(16, 4),
                                          snn.Leaky(**k, output=True)))

        def forward(self, data):
            mem_rec, spk_rec = [], []
            utils.reset(self.net)
            for step in range(data.size(0)):
                spk_out, mem_out = self.net(data[step])
                spk_rec.append(spk_out)
                mem_rec.append(mem_out)
            return torch.stack(spk_rec), torch.stack(mem_rec)
    return Model(), spikes(20)


@own()
def autoencoder():
    """Encoder and decoder of transposed convolutions, flattened in between."""
    k = {"beta": 0.5, "init_hidden": True, "threshold": 0.5}

    class SAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), snn.Leaky(**k),
                                         nn.Flatten(1), nn.Linear(4 * 16, 10), snn.Leaky(**k, output=True))
            self.linear = nn.Sequential(nn.Linear(10, 4 * 16), snn.Leaky(**k, output=True))
            self.decoder = nn.Sequential(nn.Unflatten(1, (4, 4, 4)), snn.Leaky(**k),
                                         nn.ConvTranspose2d(4, 1, 3, padding=1, stride=2, output_padding=1),
                                         snn.Leaky(**k, output=True))
            loud(self)

        def forward(self, x):
            utils.reset(self.encoder), utils.reset(self.decoder), utils.reset(self.linear)
            out = []
            for _ in range(T):
                spk, _ = self.encoder(x)
                spk, _ = self.linear(spk)
                _, mem = self.decoder(spk)
                out.append(mem)
            return torch.stack(out)[-1]
    return SAE(), torch.rand(B, 1, 8, 8)


@own()
def population_coding():
    k = {"beta": 0.9, "init_hidden": True}
    return loud(nn.Sequential(nn.Linear(20, 30), snn.Leaky(**k), nn.Linear(30, 50), snn.Leaky(**k, output=True))), \
        spikes(20)


@own()
def regression_membrane_of_the_last_step():
    class Net(Two):
        def __init__(self):
            super().__init__(o=1)
            self.lif2 = snn.Leaky(beta=0.9, learn_beta=True, reset_mechanism="none")

        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            for step in range(x.shape[0]):
                spk1, mem1 = self.lif1(self.fc1(x[step, :]), mem1)
                _, mem2 = self.lif2(self.fc2(spk1), mem2)
            return mem2
    return Net(), torch.randn(T, B, 20)


@own()
def recurrent_rleaky_states_outside():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.rlif1 = nn.Linear(20, 16), snn.RLeaky(beta=0.9, linear_features=16)
            self.fc2, self.rlif2 = nn.Linear(16, 4), snn.RLeaky(beta=0.9, all_to_all=False, V=0.4)
            loud(self, 2)

        def forward(self, x):
            spk1, mem1 = self.rlif1.init_rleaky()
            spk2, mem2 = self.rlif2.init_rleaky()
            rec = []
            for step in range(x.size(1)):
                spk1, mem1 = self.rlif1(self.fc1(x[:, step]), spk1, mem1)
                spk2, mem2 = self.rlif2(self.fc2(spk1), spk2, mem2)
                rec.append(spk2)
            return torch.stack(rec, 1)
    return Net(), spikes(20).transpose(0, 1)


@own()
def recurrence_by_hand():
    """The last step's spikes come back through a layer."""
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.back = nn.Linear(24, 24)

        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            spk1, out = torch.zeros(x.size(1), 24), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step) + self.back(spk1), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def feedback_stored_for_the_next_step():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.back = nn.Linear(6, 24)

        def forward(self, x):
            mem1, mem2, back, out = self.lif1.init_leaky(), self.lif2.init_leaky(), torch.zeros(x.size(1), 24), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step) + back, mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                back = self.back(spk2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def synaptic_filter_by_hand():
    """A leaky sum of currents outside of any neuron: a loop of its own."""
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            current = torch.zeros(x.size(1), 24)
            for step in x:
                current = 0.5 * current + self.fc1(step)
                spk1, mem1 = self.lif1(current, mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def spikes_of_two_steps_ago():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            line = [torch.zeros(x.size(1), 24)] * 2
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                line.append(spk1)
                spk2, mem2 = self.lif2(self.fc2(line[-3]), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def neurobench_style_states_in_a_list():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = [20, 24, 16, 5]
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
            self.neurons = nn.ModuleList(snn.Leaky(beta=0.9, threshold=0.6, init_hidden=True) for _ in sizes[1:])
            loud(self)

        def reset(self):
            for neuron in self.neurons:
                neuron.reset_mem()

        def single_forward(self, x):
            x = x.squeeze()
            for layer, neuron in zip(self.layers, self.neurons, strict=True):
                x = neuron(layer(x))
            return x

        def forward(self, batch):
            self.reset()
            return torch.stack([self.single_forward(batch[:, step]) for step in range(batch.shape[1])], 1)
    return Net(), spikes(20).transpose(0, 1)


@own()
def motor_prediction_membrane_through_a_gain():
    class Net(Two):
        def __init__(self):
            super().__init__(o=2)
            self.register_buffer("gain", torch.tensor([0.5, 2.0]))
            self.lif2 = snn.Leaky(beta=0.9, reset_mechanism="none", init_hidden=True, output=True)

        def forward(self, x):
            mem1, out = self.lif1.init_leaky(), []
            self.lif2.reset_mem()
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                out.append(self.lif2(self.fc2(spk1))[1] * self.gain)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def states_in_a_dict_and_a_dict_out():
    class Net(Two):
        def forward(self, x):
            state = {"mem1": self.lif1.init_leaky(), "mem2": self.lif2.init_leaky()}
            record = {"spikes": [], "membranes": []}
            for step in x:
                spk1, state["mem1"] = self.lif1(self.fc1(step), state["mem1"])
                spk2, state["mem2"] = self.lif2(self.fc2(spk1), state["mem2"])
                record["spikes"].append(spk2)
                record["membranes"].append(state["mem2"])
            return {key: torch.stack(values) for key, values in record.items()}
    return Net(), spikes(20)


@own()
def dataclass_out_and_named_arguments():
    @dataclass
    class Result:
        spikes: torch.Tensor
        rate: torch.Tensor

    class Net(Two):
        def forward(self, *, events, steps):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t in range(steps):
                spk1, mem1 = self.lif1(self.fc1(events[t]), mem=mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem=mem2)
                out.append(spk2)
            return Result(torch.stack(out), torch.stack(out).mean(0))
    return Net(), {"events": spikes(20), "steps": T}


@own()
def preallocated_record():
    class Net(Two):
        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            record = torch.zeros(x.size(0), x.size(1), 6)
            for t in range(x.size(0)):
                spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
                record[t], mem2 = self.lif2(self.fc2(spk1), mem2)
            return record
    return Net(), spikes(20)


@own()
def accumulated_spikes_and_softmax():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, total = self.lif1.init_leaky(), self.lif2.init_leaky(), 0
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                total = total + spk2
            return F.log_softmax(total / x.size(0), dim=-1)
    return Net(), spikes(20)


@own()
def a_head_of_relu_behind_the_last_spikes():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Tanh())

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(self.head(spk2))
            return torch.stack(out).mean(0)
    return Net(), spikes(20)


@own()
def linear_readout_of_every_step():
    class Net(Two):
        def forward(self, x):
            mem1, out = self.lif1.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                out.append(self.fc2(spk1))
            return torch.stack(out).sum(0)
    return Net(), spikes(20)


@own()
def two_heads():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.fc3, self.lif3 = nn.Linear(24, 2), snn.Leaky(0.9)
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
    return Net(), spikes(20)
