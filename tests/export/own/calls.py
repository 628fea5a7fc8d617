"""What forward takes, and where its states come from and go to."""

from collections import namedtuple

import snntorch as snn
import torch
from torch import nn

from tests.export.own.base import B, T, Two, loud, own, spikes


class Steps(Two):
    """One step, states as arguments."""

    def step(self, x, mem1, mem2):
        spk1, mem1 = self.lif1(self.fc1(x), mem1)
        spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
        return spk1, mem1, spk2, mem2


@own()
def an_option_beside_the_input():
    """The membrane that comes back is no gain."""
    class Net(Two):
        def __init__(self):
            super().__init__(init_hidden=True)
            self.lif2.output = True

        def forward(self, x, gain=1.5):
            return self.lif2(self.fc2(self.lif1(self.fc1(x) * gain)))
    return Net(), spikes(20)


@own()
def an_option_that_is_returned():
    class Net(Two):
        def __init__(self):
            super().__init__(init_hidden=True)

        def forward(self, x, gain=1.5):
            return self.lif2(self.fc2(self.lif1(self.fc1(x) * gain))), gain
    return Net(), spikes(20)


@own()
def states_among_other_results():
    """mem1, spk1, mem2, spk2, as snnTorch's documentation returns them."""
    class Net(Steps):
        def forward(self, x, mem1=None, mem2=None, verbose=False):
            mem1 = self.lif1.init_leaky() if mem1 is None else mem1
            mem2 = self.lif2.init_leaky() if mem2 is None else mem2
            spk1, mem1, spk2, mem2 = self.step(x, mem1, mem2)
            return mem1, spk1, mem2, spk2
    return Net(), spikes(20)


@own()
def states_in_a_tuple():
    class Net(Steps):
        def forward(self, x, state=None):
            state = (self.lif1.init_leaky(), self.lif2.init_leaky()) if state is None else state
            _, mem1, spk, mem2 = self.step(x, *state)
            return spk, (mem1, mem2)
    return Net(), spikes(20)


@own()
def states_in_a_dict_that_goes_round():
    class Net(Steps):
        def forward(self, x, state=None):
            state = {"a": self.lif1.init_leaky(), "b": self.lif2.init_leaky()} if state is None else dict(state)
            _, state["a"], spk, state["b"] = self.step(x, state["a"], state["b"])
            return spk, state
    return Net(), spikes(20)


@own()
def states_in_a_named_tuple():
    made = namedtuple("made", ["out", "first", "second"])

    class Net(Steps):
        def forward(self, x, second=None, first=None):
            zeros = x.new_zeros(x.shape[0], 24), x.new_zeros(x.shape[0], 6)
            first, second = zeros[0] if first is None else first, zeros[1] if second is None else second
            _, first, spk, second = self.step(x, first, second)
            return made(spk, first, second)
    return Net(), spikes(20)


@own()
def states_copied_into_buffers():
    class Net(Steps):
        def __init__(self):
            super().__init__()
            self.register_buffer("mem1", torch.zeros(B, 24))
            self.register_buffer("mem2", torch.zeros(B, 6))

        def forward(self, x):
            _, mem1, spk, mem2 = self.step(x, self.mem1, self.mem2)
            self.mem1.copy_(mem1)
            self.mem2[:] = mem2
            return spk
    return Net(), spikes(20)


@own()
def states_put_as_data():
    class Net(Steps):
        def __init__(self):
            super().__init__()
            self.register_buffer("mem1", torch.zeros(B, 24))
            self.register_buffer("mem2", torch.zeros(B, 6))

        @torch.no_grad()
        def forward(self, x):
            _, mem1, spk, mem2 = self.step(x, self.mem1, self.mem2)
            self.mem1.data, self.mem2.data = mem1, mem2
            return spk
    return Net(), spikes(20)


@own()
def changed_in_inference_mode():
    """Where torch counts no versions of what is written to in place."""
    class Net(Steps):
        @torch.inference_mode()
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                current = self.fc1(step)
                current += 0.3
                current.mul_(1.2)[:, 3] = 0
                spk, mem1 = self.lif1(current, mem1)
                spk, mem2 = self.lif2(self.fc2(spk), mem2)
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)


class Loop(Steps):
    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in x:
            _, mem1, spk, mem2 = self.step(step, mem1, mem2)
            out.append(spk)
        return torch.stack(out)


@own()
def a_list_of_steps():
    return Loop(), list(spikes(20))


@own()
def a_list_of_steps_for_layers_in_order():
    k = {"beta": 0.9, "init_hidden": True}
    return loud(nn.Sequential(nn.Linear(20, 8), snn.Leaky(**k), nn.Linear(8, 4), snn.Leaky(**k))), list(spikes(20))


@own()
def bytes_that_forward_scales():
    class Net(Loop):
        def forward(self, x):
            return super().forward(x / 255)
    return Net(), torch.randint(0, 256, (T, B, 20), dtype=torch.uint8)


@own()
def whole_numbers_that_are_looked_up():
    class Net(Loop):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(30, 20)

        def forward(self, x):
            return super().forward(self.table(x).transpose(0, 1))
    return Net(), torch.randint(0, 30, (B, T))


@own()
def a_batch_of_two():
    """As a DataLoader hands it: recordings and labels."""
    class Net(Loop):
        def forward(self, batch):
            x, labels = batch
            out = super().forward(x)
            return out, nn.functional.cross_entropy(out.sum(0), labels)
    return Net(), (spikes(20), torch.randint(0, 6, (B,)))


@own()
def lightning_with_its_steps():
    class Lit(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Loop()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, number):
            raise AssertionError("is not run")

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())
    return Lit(), spikes(20)


@own("what goes in is bool: give x.float")
def bits_for_a_layer_that_takes_numbers():
    k = {"beta": 0.9, "init_hidden": True}
    return loud(nn.Sequential(nn.Linear(20, 8), snn.Leaky(**k))), spikes(20).bool()


@own("2 steps or more are needed")
def one_step_in_the_loop():
    return Loop(), spikes(20)[:1]


@own("which go back cannot be seen; show how you call it: `with export.watch.record")
def states_that_nobody_can_tell():
    class Net(Steps):
        def forward(self, x, a=None, b=None):
            a = self.lif1.init_leaky() if a is None else a
            b = self.lif2.init_leaky() if b is None else b
            return tuple(reversed(self.step(x, a, b)))
    return Net(), spikes(20)
