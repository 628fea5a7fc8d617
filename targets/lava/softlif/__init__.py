"""The leaky integrate-and-fire neuron that subtracts its threshold, as a Lava process. Needs lava-nc alone.

lava-nc's own LIF resets to zero; snnTorch's default and Loihi 2's programmable neurons subtract. In a Lava script,
with the folder above this one on `sys.path`:

    from softlif import SoftLIF, network
    dense = Dense(weights=weights)
    neurons = SoftLIF(shape=(10,), du=4095, dv=410, vth=64)
    dense.a_out.connect(neurons.a_in)
    neurons.run(RunSteps(num_steps=32), Loihi2SimCfg(select_tag="fixed_pt"))

and for a whole `.net` file `network("model.net")`, which is lava-dl's `netx.hdf5.Network` with SoftLIF where needed.

The CPU simulator's fixed-point model only: a chip needs microcode, which is not public. This file stays alone in its
folder, since Lava's compiler executes every Python file beside the one that defines a process.
"""

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import AbstractPyLifModelFixed
from lava.proc.lif.process import LIF

SUBTRACT = "CUBA_SUBTRACT"
"""Neuron type in a `.net` file. netx does not know it and stops, where under "CUBA" it would reset to zero unasked."""


class SoftLIF(LIF):
    """`lava.proc.lif.process.LIF` with reset by subtraction; parameters as there.

    v' = clip(D(v) + u' + bias - vth * s), D and u' as in Lava's LIF, s the neuron's own spike of the step before.

    Args:
        reset_interval: steps after which state returns to zero; None: never. As in Lava's `LIFReset`.
        reset_offset: the first step, counted from 1, at which it does.
    """

    def __init__(self, *, reset_interval=None, reset_offset=0, **parameters):
        super().__init__(**parameters)
        self.proc_params["reset_interval"] = reset_interval
        self.proc_params["reset_offset"] = reset_offset


@implements(proc=SoftLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("bit_accurate_loihi", "fixed_pt")
class PySoftLIF(AbstractPyLifModelFixed):
    """Fixed-point model of `SoftLIF`: 24-bit u and v, 12-bit decays, 17-bit threshold."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    vth: int = LavaPyType(int, np.int32, precision=17)

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.interval = proc_params["reset_interval"]
        self.offset = proc_params["reset_offset"]
        self.fired = 0

    def run_spk(self):
        if self.interval and self.time_step % self.interval == self.offset % self.interval:
            self.u[:] = 0
            self.v[:] = 0
            self.fired = 0
        super().run_spk()

    def scale_threshold(self):
        self.effective_vth = np.left_shift(self.vth, self.vth_shift)
        self.isthrscaled = True

    def subthr_dynamics(self, activation_in):
        # Inside the sum that Lava then clips: v saturates once, after everything was added.
        # effective_bias is of Lava's base class, which has no stubs
        self.effective_bias = self.effective_bias - self.fired * self.effective_vth  # type: ignore[has-type]
        super().subthr_dynamics(activation_in)

    def spiking_activation(self):
        return self.v > self.effective_vth

    def reset_voltage(self, spike_vector):
        self.fired = spike_vector.astype(np.int32)


def network(path, **options):
    """A `.net` file as lava-dl's `netx.hdf5.Network(net_config=path, **options)`, each layer with its own reset."""
    from lava.lib.dl.netx import hdf5

    stock = hdf5.Network.get_neuron_params

    def with_reset(neuron, reset_interval=None, reset_offset=0, **more):
        if neuron["type"] != SUBTRACT:
            return stock(neuron, reset_interval=reset_interval, reset_offset=reset_offset, **more)
        cuba = {"type": "CUBA", **{key: neuron[key] for key in ("iDecay", "vDecay", "vThMant")}}
        parameters = stock(cuba, **more)
        return {**parameters, "neuron_proc": SoftLIF, "reset_interval": reset_interval, "reset_offset": reset_offset}

    hdf5.Network.get_neuron_params = staticmethod(with_reset)
    try:
        return hdf5.Network(net_config=str(path), **options)
    finally:
        hdf5.Network.get_neuron_params = staticmethod(stock)
