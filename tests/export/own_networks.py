"""Networks of the kinds that snnTorch's users write: OWN[name] = (build, expected), build() -> (network, inputs).

`expected` is None where the network is exported as it is, else a part of the reason why it is refused. inputs are what
forward takes; the values are random spikes or currents.
"""

import itertools
from collections import OrderedDict
from dataclasses import dataclass

import snntorch as snn
import torch
from snntorch import spikegen, surrogate, utils
from torch import nn
from torch.nn import functional as F

T, B = 11, 5
OWN = {}


def own(expected: str | None = None):
    def keep(build):
        OWN[build.__name__] = build, expected
        return build
    return keep


def spikes(*shape, p=0.3, steps=T):
    return (torch.rand(steps, B, *shape) < p).float()


def loud(network: nn.Module, factor: float = 3.0) -> nn.Module:
    """Weights that make untrained neurons fire."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data *= factor
    return network


class Two(nn.Module):
    """Two dense layers; subclasses differ in forward."""

    def __init__(self, i=20, h=24, o=6, **options):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(i, h), snn.Leaky(beta=0.9, **options)
        self.fc2, self.lif2 = nn.Linear(h, o), snn.Leaky(beta=0.8, **options)
        loud(self)


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


@own("largest of currents")
def tutorial6_max_pooling_of_currents():
    k = {"beta": 0.5, "init_hidden": True}
    return loud(nn.Sequential(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2), snn.Leaky(**k), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2),
                              snn.Leaky(**k), nn.Flatten(), nn.Linear(16, 5), snn.Leaky(**k, output=True))), \
        spikes(1, 16, 16)


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


@own("inside a NIR neuron")
def regression_membrane_of_a_zero_reset():
    class Net(Two):
        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                _, mem2 = self.lif2(self.fc2(spk1), mem2)
            return mem2
    return Net(reset_mechanism="zero"), spikes(20)


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


@own()
def encoder_of_relu_convolutions():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4))
            self.fc1, self.lif1 = nn.Linear(4 * 9, 12), snn.Leaky(0.9)
            self.fc2, self.lif2 = nn.Linear(12, 3), snn.Leaky(0.9)
            loud(self)

        def forward(self, x, steps=T):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            z = self.features(x).flatten(1)
            for _ in range(steps):
                spk1, mem1 = self.lif1(self.fc1(z), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), torch.rand(B, 1, 8, 8)


@own()
def rate_coded_inside():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in spikegen.rate(x, num_steps=T):
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), torch.rand(B, 20)


@own()
def latency_coded_inside():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in spikegen.latency(x, num_steps=T, normalize=True, linear=True):
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), torch.rand(B, 20)


@own()
def emg_conv1d_batch_first():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.lif1 = nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), snn.Leaky(0.8)
            self.pool, self.fc, self.lif2 = nn.MaxPool1d(2), nn.Linear(40, 5), snn.Leaky(0.9)
            self.norm.running_var.fill_(0.2)
            loud(self)

        def forward(self, x):
            mem1, mem2, spk = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t in range(x.shape[1]):
                s, mem1 = self.lif1(self.norm(self.conv(x[:, t])), mem1)
                s, mem2 = self.lif2(self.fc(torch.flatten(self.pool(s), start_dim=1)), mem2)
                spk.append(s)
            return torch.stack(spk, dim=1).mean(dim=1)
    return Net(), torch.randn(B, T, 4, 10)


@own()
def audio_layer_over_the_whole_sequence():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            current = self.fc1(x)
            for t in range(current.size(0)):
                spk1, mem1 = self.lif1(current[t], mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def permuted_to_time_first_and_unbound():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for frame in x.permute(1, 0, 2).unbind(0):
                spk1, mem1 = self.lif1(self.fc1(frame), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out += [spk2]
            return torch.cat([o.unsqueeze(0) for o in out])
    return Net(), spikes(20).transpose(0, 1)


@own()
def u_net_with_a_skip():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            k = {"beta": 0.7, "init_hidden": True, "threshold": 0.5}
            self.down1, self.l1 = nn.Conv2d(1, 4, 3, padding=1), snn.Leaky(**k)
            self.pool = nn.AvgPool2d(2)
            self.down2, self.l2 = nn.Conv2d(4, 6, 3, padding=1), snn.Leaky(**k)
            self.up = nn.Upsample(scale_factor=2, mode="nearest")
            self.out, self.l3 = nn.Conv2d(10, 2, 3, padding=1), snn.Leaky(**k, output=True)
            loud(self)

        def forward(self, x):
            a = self.l1(self.down1(x))
            b = self.l2(self.down2(self.pool(a)))
            return self.l3(self.out(torch.cat([self.up(b), a], dim=1)))
    return Net(), spikes(1, 8, 8)


@own()
def dense_block_of_concatenations():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            k = {"beta": 0.7, "init_hidden": True}
            self.c1, self.l1 = nn.Conv2d(2, 4, 3, padding=1), snn.Leaky(**k)
            self.c2, self.l2 = nn.Conv2d(6, 4, 3, padding=1), snn.Leaky(**k)
            self.fc, self.l3 = nn.Linear(10 * 36, 4), snn.Leaky(**k)
            loud(self)

        def forward(self, x):
            a = self.l1(self.c1(x))
            b = self.l2(self.c2(torch.cat((x, a), 1)))
            return self.l3(self.fc(torch.cat((x, a, b), 1).flatten(1)))
    return Net(), spikes(2, 6, 6)


@own()
def two_streams_joined():
    """Left and right half of the features, each with a layer of its own."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.la = nn.Linear(10, 12), snn.Leaky(0.9)
            self.b, self.lb = nn.Linear(10, 12), snn.Synaptic(0.8, 0.9)
            self.fc, self.lo = nn.Linear(24, 4), snn.Leaky(0.9)
            loud(self)

        def forward(self, x):
            ma, (sb, mb), mo, out = self.la.init_leaky(), self.lb.init_synaptic(), self.lo.init_leaky(), []
            for t in range(x.size(0)):
                left, right = x[t, :, :10], x[t, :, 10:]
                pa, ma = self.la(self.a(left), ma)
                pb, sb, mb = self.lb(self.b(right), sb, mb)
                spk, mo = self.lo(self.fc(torch.cat([pa, pb], -1)), mo)
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def two_inputs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.lif = nn.Linear(8, 12), nn.Linear(5, 12), snn.Leaky(0.9)
            loud(self)

        def forward(self, events, motion):
            mem, out = self.lif.init_leaky(), []
            for t in range(events.size(0)):
                spk, mem = self.lif(self.a(events[t]) + self.b(motion[t]), mem)
                out.append(spk)
            return torch.stack(out)
    return Net(), (spikes(8), torch.randn(T, B, 5))


@own()
def weight_tied_layers():
    """One matrix forth and, transposed, back."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(16, 20))
            self.l1, self.l2 = snn.Leaky(0.8), snn.Leaky(0.8)

        def forward(self, x):
            m1, m2, out = self.l1.init_leaky(), self.l2.init_leaky(), []
            for step in x:
                s, m1 = self.l1(F.linear(step, self.w), m1)
                s, m2 = self.l2(s @ self.w, m2)
                out.append(s)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def one_layer_called_twice():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(20, 20)
            self.l1, self.l2 = snn.Leaky(0.8, init_hidden=True), snn.Leaky(0.8, init_hidden=True)
            loud(self)

        def forward(self, x):
            return self.l2(self.fc(self.l1(self.fc(x))))
    return Net(), spikes(20)


@own()
def one_neuron_for_two_layers_with_states_of_their_own():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.lif = nn.Linear(20, 16), nn.Linear(16, 6), snn.Leaky(0.9)
            loud(self)

        def forward(self, x):
            m1, m2, out = torch.zeros(x.size(1), 16), torch.zeros(x.size(1), 6), []
            for step in x:
                s, m1 = self.lif(self.a(step), m1)
                s, m2 = self.lif(self.b(s), m2)
                out.append(s)
            return torch.stack(out)
    return Net(), spikes(20)


@own("times in a step, and it has one state")
def one_hidden_state_for_two_layers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(20, 20), snn.Leaky(0.9, init_hidden=True)
            self.out = snn.Leaky(0.9, init_hidden=True)
            loud(self)

        def forward(self, x):
            return self.out(self.lif(self.fc(self.lif(self.fc(x)))))
    return Net(), spikes(20)


@own()
def lightning_style():
    class LightningModule(nn.Module):
        """What it adds to a module, as far as a run sees it."""

        def __init__(self):
            super().__init__()
            self.hparams, self._trainer, self.history = {"lr": 1e-3}, None, []

        @property
        def device(self):
            return next(self.parameters()).device

    class Lit(LightningModule):
        def __init__(self):
            super().__init__()
            k = {"beta": 0.9, "init_hidden": True}
            self.model = loud(nn.Sequential(OrderedDict(fc1=nn.Linear(20, 16), lif1=snn.Leaky(**k),
                                                        drop=nn.Dropout(0.5), fc2=nn.Linear(16, 4),
                                                        lif2=snn.Leaky(**k, output=True))))

        def forward(self, x):
            utils.reset(self.model)
            outs = [self.model(frame.to(self.device)) for frame in x]
            self.history.append(len(outs))
            spk, mem = zip(*outs, strict=True)
            return torch.stack(spk), torch.stack(mem)
    return Lit(), spikes(20)


@own()
def neurons_in_a_plain_list():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fcs = nn.ModuleList([nn.Linear(20, 16), nn.Linear(16, 4)])
            self.lifs = [snn.Leaky(0.9), snn.Leaky(0.9)]
            loud(self)

        def forward(self, x):
            mems = [None, None]
            out = []
            for step in x:
                for i in range(2):
                    step, mems[i] = self.lifs[i](self.fcs[i](step), mems[i])
                out.append(step)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def states_kept_as_attributes_and_detached():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.reset()

        def reset(self):
            self.mem1, self.mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()

        def forward(self, x):
            spk1, self.mem1 = self.lif1(self.fc1(x), self.mem1.detach())
            spk2, self.mem2 = self.lif2(self.fc2(spk1), self.mem2.detach())
            return spk2
    return Net(), spikes(20)


@own()
def states_stacked_in_one_tensor():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(20, 20), snn.Leaky(0.9), nn.Linear(20, 20), snn.Leaky(0.9)
            loud(self)

        def forward(self, x):
            state, out = torch.zeros(2, x.size(1), 20), []
            for step in x:
                s, m1 = self.l1(self.fc1(step), state[0])
                s, m2 = self.l2(self.fc2(s), state[1])
                state = torch.stack([m1, m2])
                out.append(s)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def lapicque_and_learned_leaks():
    return loud(nn.Sequential(nn.Linear(20, 16), snn.Lapicque(R=5.0, C=2.0, time_step=1.5, init_hidden=True,
                                                             reset_mechanism="zero"),
                              nn.Linear(16, 8), snn.Lapicque(beta=0.7, init_hidden=True),
                              nn.Linear(8, 4), snn.Leaky(torch.rand(4), learn_beta=True, init_hidden=True,
                                                        threshold=torch.rand(4) + 0.2, learn_threshold=True,
                                                        output=True)), 6.0), spikes(20)


@own()
def alpha_without_reset():
    return loud(nn.Sequential(nn.Linear(20, 16), snn.Alpha(alpha=0.8, beta=0.7, init_hidden=True, threshold=0.3,
                                                          reset_mechanism="none"),
                              nn.Linear(16, 4), snn.Leaky(0.9, init_hidden=True)), 6.0), spikes(20)


@own("empties two currents")
def alpha_with_its_default_reset():
    return loud(nn.Sequential(nn.Linear(20, 16), snn.Alpha(alpha=0.8, beta=0.7, init_hidden=True, threshold=0.3))), \
        spikes(20)


@own()
def reset_inside_the_step():
    class Net(Two):
        def __init__(self):
            super().__init__(init_hidden=True)

        def forward(self, x):
            utils.reset(self)
            return self.lif2(self.fc2(self.lif1(self.fc1(x))))
    return Net(), spikes(20)


@own("made anew in step")
def reset_every_third_step():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t, step in enumerate(x):
                if t % 3 == 0:
                    mem1 = self.lif1.init_leaky()
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("comes from operation 'mul'")
def state_changed_by_hand():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1 * 0.5)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("not zero")
def state_that_starts_at_a_learned_value():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(torch.rand(24))

        def forward(self, x):
            mem1, mem2, out = self.start.expand(x.size(1), -1), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("into Python")
def branch_on_a_neuron():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                if spk1.sum() > 30:
                    spk1 = spk1 * 0.5
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("other samples give another graph")
def gain_from_the_samples():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            gain = 1 + x.sum().item() / 1000
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step) * gain, mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("drops at inference")
def dropout_left_on():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(F.dropout(spk1, 0.3)), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("the steps are not the same")
def another_layer_in_the_first_step():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(24, 6)

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t, step in enumerate(x):
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2((self.fc2 if t else self.other)(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("the steps are not the same")
def batchnorm_through_time():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList(nn.BatchNorm1d(6) for _ in range(T))
            for norm in self.norms:
                norm.running_mean.uniform_()

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t, step in enumerate(x):
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.norms[t](self.fc2(spk1)), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("SConv2dLSTM")
def convolutional_lstm():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = snn.SConv2dLSTM(1, 4, 3, threshold=0.1)
            self.fc, self.lif = nn.Linear(4 * 64, 4), snn.Leaky(0.9)

        def forward(self, x):
            (syn, mem), out_mem, out = self.lstm.init_sconv2dlstm(), self.lif.init_leaky(), []
            for step in x:
                spk, syn, mem = self.lstm(step, syn, mem)
                s, out_mem = self.lif(self.fc(spk.flatten(1)), out_mem)
                out.append(s)
            return torch.stack(out)
    return Net(), spikes(1, 8, 8)


@own("multiplies")
def gated_spikes():
    class Net(Two):
        def __init__(self):
            super().__init__(o=24)

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1) * spk1, mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("GroupNorm")
def group_norm_inside_the_loop():
    k = {"beta": 0.7, "init_hidden": True}
    return loud(nn.Sequential(nn.Conv2d(2, 4, 3), snn.Leaky(**k), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4),
                              snn.Leaky(**k))), spikes(2, 8, 8)


@own("inhibition")
def winner_takes_all():
    return loud(nn.Sequential(nn.Linear(20, 16), snn.Leaky(0.9, init_hidden=True, inhibition=True))), spikes(20)


@own()
def a_network_in_training_with_history():
    """Just trained: states on the graph, a list that grows, a counter."""
    class Net(Two):
        def __init__(self):
            super().__init__(init_hidden=True)
            self.log, self.calls = [], 0

        def forward(self, x):
            self.calls += 1
            spk = self.lif2(self.fc2(self.lif1(self.fc1(x))))
            self.log.append(spk.detach())
            return spk
    network = Net()
    network(spikes(20)[0]).sum().backward()
    return network, spikes(20)


@own()
def changed_in_place():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            x = x.clone()
            x[:, :, 3:5] = 0
            for step in x:
                current = self.fc1(step)
                current += 0.1
                current.mul_(1.5)
                spk1, mem1 = self.lif1(current, mem1)
                spk1[:, 0] = 0
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def masks_and_pruned_weights():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", (torch.rand(24) < 0.7).float())
            self.register_buffer("keep", (torch.rand(6, 24) < 0.5).float())

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                cur = F.linear(spk1 * self.mask, self.fc2.weight * self.keep, self.fc2.bias)
                spk2, mem2 = self.lif2(cur, mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def einsum_and_permutation():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 5, 4))
            self.fc, self.l1, self.l2 = nn.Linear(20, 20), snn.Leaky(0.9), snn.Leaky(0.9)
            loud(self)

        def forward(self, x):
            m1, m2, out = self.l1.init_leaky(), self.l2.init_leaky(), []
            for step in x:
                s, m1 = self.l1(self.fc(step), m1)
                s = s.view(-1, 4, 5).permute(0, 2, 1)
                s, m2 = self.l2(torch.einsum("bij,kij->bk", s, self.w), m2)
                out.append(s)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def token_features():
    """A layer over the last axis of a picture of features."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            k = {"beta": 0.8, "init_hidden": True}
            self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(6, 8), snn.Leaky(**k), nn.Linear(8, 3), snn.Leaky(**k)
            loud(self)

        def forward(self, x):
            return self.l2(self.fc2(self.l1(self.fc1(x))).mean(1))
    return Net(), spikes(4, 6)


@own()
def weight_normalised():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.utils.parametrizations.weight_norm(self.fc1)

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def functional_neurons_and_softened_skip():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            k = {"beta": 0.8, "init_hidden": True}
            self.a, self.b, self.c = (nn.Linear(20, 20) for _ in range(3))
            self.l1, self.l2, self.l3 = (snn.Leaky(**k) for _ in range(3))
            self.mix = nn.Parameter(torch.tensor(0.3))
            loud(self)

        def forward(self, x):
            s1 = self.l1(self.a(x))
            s2 = self.l2(self.b(s1) + self.mix * s1)
            return self.l3((self.c(s2) - s1) / 2 + (1 - self.mix) * s2 + s1 + s1)
    return Net(), spikes(20)
