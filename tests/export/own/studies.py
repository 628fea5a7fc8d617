"""Networks as studies publish them: weights of every making, graphs, sound, twins, control; and what none holds."""

import collections

import snntorch as snn
import torch
from snntorch import utils
from torch import nn
from torch.nn import functional as F

from tests.export.own.base import B, T, Two, loud, own, spikes

_LEAK = {"beta": 0.7, "init_hidden": True}


class Steps(Two):
    """Two dense layers; subclasses differ in one of the currents, or in what lies between."""

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in x:
            spk1, mem1 = self.lif1(self.first(step), mem1)
            spk2, mem2 = self.lif2(self.second(self.between(spk1)), mem2)
            out.append(spk2)
        return torch.stack(out)

    def first(self, x):
        return self.fc1(x)

    def between(self, spk):
        return spk

    def second(self, spk):
        return self.fc2(spk)


class Rounded(torch.autograd.Function):
    """Straight through."""

    @staticmethod
    def forward(ctx, weight, scale):
        return torch.round(weight / scale).clamp(-127, 127) * scale

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class QuantLinear(nn.Linear):
    def forward(self, x):
        return F.linear(x, Rounded.apply(self.weight, self.weight.detach().abs().max() / 7), self.bias)


class WeightQuant(nn.Module):
    """A proxy as quantisation libraries put in: a module that makes the weight."""

    def forward(self, weight):
        scale = weight.abs().max() / 7
        return weight + (torch.round(weight / scale) * scale - weight).detach(), scale


class ProxyLinear(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.weight_quant, self.input_quant = WeightQuant(), nn.Identity()

    def forward(self, x):
        return F.linear(self.input_quant(x), self.weight_quant(self.weight)[0], self.bias)


@own()
def weights_that_layers_round_themselves():
    network = Steps()
    network.fc1, network.fc2 = QuantLinear(20, 24), ProxyLinear(24, 6)
    return loud(network), spikes(20)


@own()
def weights_sparse_of_low_rank_and_signed():
    class Net(Steps):
        def __init__(self):
            super().__init__()
            self.sparse = (torch.randn(24, 20) * (torch.rand(24, 20) < 0.2)).to_sparse()
            self.a, self.b = nn.Parameter(torch.randn(3, 20)), nn.Parameter(torch.randn(24, 3) * 0.4)
            self.register_buffer("sign", torch.sign(torch.randn(24)))

        def first(self, x):
            return torch.sparse.mm(self.sparse.to(x.dtype), x.t()).t() + (x @ self.a.T) @ self.b.T

        def second(self, spk):
            return F.linear(spk, self.fc2.weight.abs() * self.sign, self.fc2.bias)
    return Net(), spikes(20)


@own()
def norms_with_statistics_of_their_own():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif = nn.Conv2d(2, 4, 3), snn.Leaky(**_LEAK)
            self.norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
            self.fc, self.out, self.last = nn.Linear(64, 5), snn.Leaky(**_LEAK), nn.SyncBatchNorm(5)
            for norm in (self.norm, self.last):
                norm.running_mean.normal_(0, 0.1)
                norm.running_var.uniform_(0.2, 0.6)
            loud(self, 2)

        def forward(self, x):
            return self.out(self.last(self.fc(self.lif(self.norm(self.conv(x))).flatten(1))))
    return Net(), spikes(2, 6, 6)


@own()
def edges_of_a_graph_scattered():
    class Net(nn.Module):
        def __init__(self, nodes=6):
            super().__init__()
            self.register_buffer("edges", torch.randint(0, nodes, (2, 15)))
            self.weight = nn.Parameter(torch.rand(15))
            self.fc1, self.lif1, self.fc2, self.lif2 = nn.Linear(4, 5), snn.Leaky(0.8), nn.Linear(5, 3), snn.Leaky(0.8)
            loud(self)

        def spread(self, nodes):
            messages = nodes.index_select(1, self.edges[0]) * self.weight[:, None]
            return torch.zeros_like(nodes).scatter_add(1, self.edges[1][None, :, None].expand_as(messages), messages)

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk, mem1 = self.lif1(self.spread(self.fc1(step)), mem1)
                nodes = self.fc2(spk)
                nodes = torch.zeros_like(nodes).index_add(1, self.edges[1], nodes[:, self.edges[0]])
                spk, mem2 = self.lif2(nodes, mem2)
                out.append(spk.sum(1))
            return torch.stack(out)
    return Net(), spikes(6, 4)


@own()
def convolution_by_its_columns():
    class Net(Steps):
        def __init__(self):
            super().__init__(i=18, h=8)

        def first(self, x):
            return self.fc1(F.unfold(x, 3, stride=2).transpose(1, 2))

        def second(self, spk):
            return self.fc2(spk.mean(1))
    return Net(), spikes(2, 6, 6)


@own()
def leaks_through_a_sigmoid():
    class Net(Steps):
        def __init__(self):
            super().__init__()
            self.rate1, self.rate2 = nn.Parameter(torch.randn(24)), nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            self.lif1.beta, self.lif2.beta = torch.sigmoid(self.rate1), nn.Parameter(torch.sigmoid(self.rate2))
            return super().forward(x)
    return Net(), spikes(20)


@own()
def delays_in_a_queue():
    class Net(Steps):
        def forward(self, x):
            self.past = collections.deque([torch.zeros(x.size(1), 24)] * 3, maxlen=3)
            return super().forward(x)

        def between(self, spk):
            late = self.past[0] + 0.5 * self.past[2]
            self.past.append(spk)
            return late
    return Net(), spikes(20)


@own()
def windows_of_a_wave():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif, self.pool = nn.Conv1d(1, 4, 7, stride=2), snn.Leaky(**_LEAK), nn.MaxPool1d(2)
            self.fc, self.out = nn.Linear(16, 4), snn.Leaky(**_LEAK)
            loud(self, 4)

        def forward(self, wave):
            utils.reset(self)
            windows = wave.unfold(-1, 24, 12)
            return torch.stack([self.out(self.fc(self.pool(self.lif(self.conv(windows[:, :, t]))).flatten(1)))
                                for t in range(windows.shape[2])])
    return Net(), torch.randn(B, 1, 132) * 2


@own()
def read_from_both_ends():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(20, 12), snn.Leaky(0.8)
            self.fc2, self.lif2 = nn.Linear(20, 12), snn.Leaky(0.8)
            self.head = nn.Linear(24, 4)
            loud(self)

        def forward(self, x):
            sums = []
            for fc, lif, steps in ((self.fc1, self.lif1, x), (self.fc2, self.lif2, x.flip(0))):
                mem, total = lif.init_leaky(), 0
                for step in steps:
                    spk, mem = lif(fc(step), mem)
                    total = total + spk
                sums.append(total)
            return self.head(torch.cat(sums, -1))
    return Net(), spikes(20)


@own()
def steps_that_are_yielded():
    class Net(Steps):
        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                yield spk2
    return Net(), spikes(20)


@own()
def a_sequence_in_a_context():
    class Net(Steps):
        def __init__(self):
            super().__init__()
            self.goal = nn.Linear(6, 24)

        def forward(self, x, goal):
            self.offset = self.goal(goal)
            return super().forward(x)

        def first(self, x):
            return self.fc1(x) + self.offset
    return Net(), (spikes(20), torch.rand(B, 6))


@own()
def twins_in_one_batch():
    class Net(Steps):
        def forward(self, a, b):
            one, other = super().forward(torch.cat([a, b], 1)).sum(0).chunk(2)
            return F.cosine_similarity(one, other, dim=-1)
    return Net(), (spikes(20), spikes(20))


# ------------------------------------------------------------------------------------------------------- refused


@own("no operation in sight made it")
def spikes_through_a_scripted_function():
    scale = torch.jit.script(_scaled)

    class Net(Steps):
        def between(self, spk):
            return scale(spk)
    return Net(), spikes(20)


def _scaled(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5 + torch.roll(x, [1], [1])


@own("'net.0' .Linear.: forward runs it with other parameters than it holds")
def weights_put_in_for_a_call():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = loud(nn.Sequential(nn.Linear(20, 16), snn.Leaky(**_LEAK), nn.Linear(16, 4), snn.Leaky(**_LEAK)))
            self.step = nn.Parameter(torch.randn(16, 20) * 0.3)

        def forward(self, x):
            fast = {"0.weight": self.net[0].weight + self.step}
            return torch.stack([torch.func.functional_call(self.net, fast, (step,)) for step in x])
    return Net(), spikes(20)


@own("'lif1' .Leaky.: its fire was replaced")
def a_neuron_with_another_threshold_function():
    network = Steps()
    fire = network.lif1.fire
    network.lif1.fire = lambda membrane: fire(membrane - 0.5)
    return network, spikes(20)


@own("operation 'setitem': takes a whole sequence")
def channels_shifted_in_time():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(20, 16), snn.Leaky(0.8)
            self.fc2, self.lif2 = nn.Linear(16, 4), snn.Leaky(0.8)
            loud(self)

        def forward(self, x):
            mem1, mem2, first, out = self.lif1.init_leaky(), self.lif2.init_leaky(), [], []
            for step in x:
                spk, mem1 = self.lif1(self.fc1(step), mem1)
                first.append(spk)
            first = torch.stack(first)
            shifted = torch.zeros_like(first)
            shifted[:-1, :, :4] = first[1:, :, :4]
            shifted[:, :, 4:] = first[:, :, 4:]
            for step in shifted:
                spk, mem2 = self.lif2(self.fc2(step), mem2)
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)


@own("nothing that it returns hangs on one of them")
def a_run_to_warm_up():
    class Net(Steps):
        def forward(self, x):
            super().forward(x)
            return super().forward(x)
    return Net(), spikes(20)


@own("mixes the samples of a batch")
def the_mean_of_a_batch_taken_off():
    class Net(Steps):
        def between(self, spk):
            return spk - spk.mean(0)
    return Net(), spikes(20)


@own("multiplies two signals")
def tokens_masked_by_attention():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.out = (nn.Linear(8, 8) for _ in range(3))
            self.lif_q, self.lif_k, self.lif_a, self.lif = (snn.Leaky(**_LEAK) for _ in range(4))
            loud(self)

        def forward(self, x):
            q, k = self.lif_q(self.q(x)), self.lif_k(self.k(x))
            return self.lif(self.out(self.lif_a(q.sum(-1, keepdim=True)) * (k + x)))
    return Net(), torch.rand(T, B, 5, 8)


@own("'sigmoid'")
def gated_unit_of_spikes():
    class Net(Two):
        def __init__(self):
            super().__init__(i=44)
            self.gate = nn.Linear(44, 24)

        def forward(self, x):
            mem, spk, held, out = self.lif1.init_leaky(), x.new_zeros(x.size(1), 24), x.new_zeros(x.size(1), 24), []
            for step in x:
                both = torch.cat([step, spk], 1)
                open_ = torch.sigmoid(self.gate(both))
                held = open_ * held + (1 - open_) * self.fc1(both)
                spk, mem = self.lif1(held, mem)
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)


@own("the steps are not the same")
def weights_that_learn_in_the_run():
    class Net(Steps):
        def forward(self, x):
            self.fast = self.fc2.weight.expand(x.size(1), -1, -1)
            return super().forward(x)

        def second(self, spk):
            current = torch.bmm(self.fast, spk[..., None])[..., 0]
            self.fast = self.fast + 0.01 * current[:, :, None] * spk[:, None]
            return current
    return Net(), spikes(20)


@own("let it call those that it holds .lif1, lif2.")
def neurons_that_are_never_called():
    class Net(Steps):
        def forward(self, x):
            return self.fc2(torch.sigmoid(self.fc1(x)))
    return Net(), spikes(20)


@own("'norm' .RMSNorm.: NIR has no such operation; its factors depend on the input")
def root_mean_squares_between_layers():
    network = Steps()
    network.norm = nn.RMSNorm(6)
    network.second = lambda spk: network.norm(network.fc2(spk))
    return network, spikes(20)
