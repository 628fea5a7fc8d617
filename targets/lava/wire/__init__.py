"""Spikes that arrive later, as a Lava process. Needs lava-nc alone.

Every connection of Lava is one step late. Where ways of different length meet, the shorter one needs a wire; a spike
that would cross from one sample into the next is dropped on it. This file stays alone in its folder, since Lava's
compiler executes every Python file beside the one that defines a process.
"""

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class Wire(AbstractProcess):
    """Gives what it got `late` steps ago.

    Args:
        shape: of the spikes.
        late: steps of Lava, 0 or more.
        source: steps of Lava by which the source answers late.
        delay: steps by which the graph wants a spike to be heard late: those of a sample's last ones get lost.
        interval: steps of a sample.
    """

    def __init__(self, *, shape, late, source, delay, interval):
        super().__init__(shape=shape, late=late, source=source, delay=delay, interval=interval)
        self.s_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=Wire, protocol=LoihiProtocol)
@requires(CPU)
@tag("bit_accurate_loihi", "fixed_pt")
class PyWire(PyLoihiProcessModel):
    """Model of `Wire`. A spike is sent before the next one is received, so that loops do not wait for themselves."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.late, self.source = proc_params["late"], proc_params["source"]
        self.delay, self.interval = proc_params["delay"], proc_params["interval"]
        self.waiting = [np.zeros(proc_params["shape"], np.int32) for _ in range(self.late)]

    def run_spk(self):
        if self.late:
            self.s_out.send(self.waiting.pop(0))
        spikes = self.s_in.recv()
        step = self.time_step - 1 - self.source  # of the graph, counted from 0 over all samples
        if step < 0 or step % self.interval >= self.interval - self.delay:
            spikes = np.zeros_like(spikes)
        if self.late:
            self.waiting.append(spikes)
        else:
            self.s_out.send(spikes)
