"""What the host computes behind the convolutional stages of a network: NAME.behind.onnx beside their graph.

It takes a step of the graph's Output, counts s, as `input`, states as `targets.onnx.model` has them, and gives the
spikes of its layers and `output`, the logits of the step; a run's are their mean. A graph quantised later has the same
Output.

    session = onnxruntime.InferenceSession("best.conv.behind.onnx")             # output: (T, B, C, H, W) of the graph
    logits = np.mean([session.run(["output"], {"input": step.astype("float32")})[0] for step in output], 0)
"""

import copy
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nir
import torch
from torch import Tensor, nn

from export.check.attention import network_differences
from export.check.parity import HostPart
from export.formats.network_onnx import layer_shapes, network_to_onnx
from hardspike import HardspikeError, versions
from targets.onnx import runtime
from targets.target import CHUNK, Target
from trainer.checkpoint import Checkpoint
from trainer.config import to_dict
from trainer.networks import Network
from trainer.networks.espikeformer import behind_stages


@dataclass(frozen=True)
class Behind:
    """The host's part.

    Args:
        network: its layers.
        content: the file's bytes.
    """

    network: Network
    content: bytes

    def check(self, graph: nir.NIRGraph, target: Target, frames: Tensor) -> HostPart:
        """The file in onnxruntime on what `graph` gives on `frames` (T, B, ...), against the layers in float64.

        Raises:
            HardspikeError: they differ by more than float32 rounds.
        """
        part = HostPart("behind.onnx", 0, 0.0, 0)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / part.file
            file.write_bytes(self.content)
            for some in frames.split(CHUNK, 1):
                given = target.run(graph, some).output.float()
                found = runtime.run_file(file, given)
                exact, seen = network_differences(self.network, given, found.spikes, found.output)
                if seen.beyond or seen.outputs_beyond:
                    raise HardspikeError(f"{part.file}, what the host computes behind the stages: {seen.beyond} first "
                                         f"differences from its layers in float64 and {seen.outputs_beyond} logits are "
                                         "beyond rounding; please report this network")
                differs = [(spikes != found.spikes[name].reshape(spikes.shape)).transpose(0, 1).flatten(1).any(1)
                           for name, spikes in exact.items()]
                same = ~torch.stack(differs).any(0)
                wanted, mine = self._logits(given), found.output.mean(0)
                part.values += wanted.numel()
                part.spikes += seen.spikes
                off = (mine - wanted)[same].abs() / wanted.abs().max().clamp(1)
                part.difference = max([part.difference, *off.flatten().tolist()])
        return part

    @torch.no_grad()
    def _logits(self, given: Tensor) -> Tensor:
        exact = copy.deepcopy(self.network).double().eval()
        with exact.mode(hard=True):
            return exact(given.double())


def behind(checkpoint: Checkpoint) -> Behind | None:
    """The file of a checkpoint's network; None where it has no one that takes the stages' output alone."""
    network = behind_stages(checkpoint.network)
    if network is None:
        return None
    shape = layer_shapes(checkpoint.network, tuple(checkpoint.shape))[next(iter(network.layers))]
    # the graph gives s, the network passes s/D on
    grade = nn.Conv2d(shape[0], shape[0], 1, groups=shape[0], bias=False)
    nn.init.constant_(grade.weight, 1 / checkpoint.config.network.levels)
    network = Network({"grade": grade, **network.layers}, network.readout, network.sums)
    said = {"hardspike": versions("hardspike")["hardspike"], "readout": network.readout, "arithmetic": "float32",
            "data": json.dumps(to_dict(checkpoint.config)["data"])}
    return Behind(network, network_to_onnx(network, shape, said).SerializeToString())
