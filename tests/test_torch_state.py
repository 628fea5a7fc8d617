"""Whatever targets and export do, torch's threads and precision are afterwards as the caller had them."""

import ast
import contextlib
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn

from export import commands as export_commands
from export.check import parity
from export.formats.nir import write_checked
from export.freeze.freeze import freeze
from export.model import Model
from export.options import Output, Quantisation
from export.passes.lower import fold, lower
from export.recordings import Recordings
from hardspike import HardspikeError
from targets import commands
from targets.chips import CHIPS
from targets.graph import plan, read, write
from targets.loihi import fixed_point
from targets.loihi.mapping import map_graph
from targets.onnx import runtime
from targets.onnx.model import to_onnx
from targets.table import TARGETS
from tests.export import stepwise
from tests.networks import SHAPE, busy_checkpoint, busy_network, frames
from trainer.data import DataConfig

ROOT = Path(__file__).parents[1]
SETTERS = {"set_num_threads", "set_num_interop_threads", "set_float32_matmul_precision", "set_default_dtype",
           "set_default_device", "set_grad_enabled", "set_flush_denormal", "use_deterministic_algorithms",
           "set_deterministic_debug_mode"}
ALLOWED = {("targets/loihi/fixed_point.py", "_exact_float32"), ("export/watch/snapshot.py", "_globals"),
           ("targets/readers/worker.py", "main")}
"""The functions that set anything: context managers, tested here and in test_watch.py, and a process of its own."""


def state() -> dict:
    """All that decides how torch computes."""
    backends = torch.backends
    operations = {"any": backends, "mkldnn": backends.mkldnn, "mkldnn.matmul": backends.mkldnn.matmul,
                  "mkldnn.conv": backends.mkldnn.conv, "mkldnn.rnn": backends.mkldnn.rnn,
                  "cuda.matmul": backends.cuda.matmul, "cudnn.conv": backends.cudnn.conv}
    return {name: operation.fp32_precision for name, operation in operations.items()} | {
        "matmul": torch.get_float32_matmul_precision(), "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(), "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled(),
        "mkldnn on": backends.mkldnn.enabled, "nnpack on": torch._C._get_nnpack_enabled()}


SETTINGS = {"as torch starts": {}, "medium": {"matmul": "medium"}, "convolutions in bf16": {"conv": "bf16"},
            "everything in tf32": {"matmul": "high", "any": "tf32"}}


@pytest.fixture(params=SETTINGS)
def unchanged(request):
    """Checks that a test leaves torch as it found it: two threads and a setting of the precision."""
    threads, asked = torch.get_num_threads(), SETTINGS[request.param]
    torch.set_num_threads(2)
    if "matmul" in asked:
        torch.set_float32_matmul_precision(asked["matmul"])
    torch.backends.mkldnn.conv.fp32_precision = asked.get("conv", "none")
    torch.backends.fp32_precision = asked.get("any", "none")
    try:
        before = state()
        yield
        assert state() == before
    finally:
        torch.set_num_threads(threads)
        torch.backends.fp32_precision = torch.backends.mkldnn.conv.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        torch.backends.mkldnn.matmul.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "none"


def chain(weight: float = 100.0) -> nir.NIRGraph:
    nodes = {"input": nir.Input(np.array([2])), "fc": nir.Linear(np.full((3, 2), weight)),
             "n": nir.IF(np.full(3, 1e4), np.full(3, 150.0), v_reset=np.zeros(3)), "output": nir.Output(np.array([3]))}
    return nir.NIRGraph(nodes, list(pairwise(nodes)), metadata={"dt": 1e-4}, type_check=False)


def network() -> nn.Module:
    """Stock snnTorch; its neurons fire."""
    linear = nn.Linear(2, 3)
    nn.init.ones_(linear.weight)
    return nn.Sequential(linear, snn.Leaky(beta=0.9, init_hidden=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint `m.pt`, its graph `m.nir`, an integer graph `q.nir`, recordings `x.npz`, others that do not fit."""
    path = tmp_path_factory.mktemp("torch")
    torch.manual_seed(0)
    busy_checkpoint(path / "m.pt", DataConfig(steps=4), layers="6c4s2p0-ap2-8c3-32", reset="zero")
    x = frames(4, 3)
    np.savez(path / "x.npz", spikes=x.numpy())
    np.savez(path / "half.npz", spikes=np.full((4, 3, 2), 0.5))
    write(chain(), path / "q.nir")
    np.savez(path / "q.npz", spikes=np.ones((4, 3, 2)))
    write(Model.open(path / "m.pt").graph, path / "m.nir")
    (path / "step.onnx").write_bytes(to_onnx(chain()).SerializeToString())
    return path


def stops(name, spikes, part):
    raise KeyboardInterrupt


CALLS = {
    "targets.graph.plan": lambda f: plan(chain()),
    "targets.graph.read": lambda f: read(f / "q.nir"),
    **{f"Target.{what} {target.name}": call for target in TARGETS.values() if target.setup is None for what, call in {
        "run": lambda f, target=target: target.run(chain(), torch.ones(4, 3, 2)),
        "run that is refused": lambda f, target=target: target.run(chain(), torch.ones(4, 3, 5)),
        "run_in_chunks": lambda f, target=target: target.run_in_chunks(chain(), torch.ones(4, 99, 2)),
        "check": lambda f, target=target: target.check(chain())}.items()},
    **{f"{name} of what {chip.name} cannot hold": call for chip in CHIPS.values() for name, call in {
        "fractions": lambda f, chip=chip: chip.run(chain(0.5), torch.ones(4, 3, 2)),
        "half spikes": lambda f, chip=chip: chip.run(chain(), torch.full((4, 3, 2), 0.5)),
        "an interrupted run": lambda f, chip=chip: chip.run(chain(), torch.ones(4, 3, 2), transmit=stops),
        "24 bits": lambda f, chip=chip: chip.run(chain(), torch.full((4, 3, 2), 1e9))}.items()},
    "map_graph": lambda f: map_graph(chain(), CHIPS["loihi2"].integers),
    "to_onnx": lambda f: to_onnx(chain()),
    "run_file": lambda f: runtime.run_file(f / "step.onnx", torch.ones(4, 3, 2)),
    "commands.list_targets": lambda f: commands.list_targets(),
    "commands.check": lambda f: commands.check(f / "q.nir"),
    "commands.map_file": lambda f: commands.map_file(f / "q.nir", picture=f / "map.svg"),
    "commands.run": lambda f: commands.run(f / "q.nir", "loihi2", f / "q.npz", f / "r.npz"),
    "commands.run that is refused": lambda f: commands.run(f / "q.nir", "loihi2", f / "half.npz"),
    "Model.graph": lambda f: Model.open(f / "m.pt").graph,
    "freeze": lambda f: freeze(dict(busy_network().layers), SHAPE),
    "fold": lambda f: fold(Model.open(f / "m.pt").graph),
    "lower": lambda f: lower(Model.open(f / "m.nir").graph, frames(4, 2), CHIPS["loihi2"], scale="max_abs"),
    "lower of no spikes": lambda f: lower(Model.open(f / "m.nir").graph, frames(4, 2) * 0.5, CHIPS["loihi2"]),
    "check_network": lambda f: parity.check_network(network := busy_network(reset="zero"),
                                                    graph := freeze(dict(network.layers), SHAPE), graph, frames(4, 2)),
    "check_stepwise": lambda f: stepwise.check_stepwise(own := network(), freeze(own, (2,)), 3 * torch.ones(4, 3, 2)),
    "write_checked": lambda f: write_checked(network(), 3 * torch.ones(4, 3, 2), f / "own.nir"),
    "write_checked that is refused": lambda f: write_checked(nn.Linear(2, 3), torch.ones(4, 3, 2), f / "no.nir"),
    "export nir": lambda f: export_commands.nir(f / "m.pt", Output(f / "a.nir"),
                                                recordings=Recordings(input=f / "x.npz")),
    "export quantise": lambda f: export_commands.quantise(
        f / "m.nir", Output(f / "b.nir"), Quantisation(scale="max_abs"), recordings=Recordings(input=f / "x.npz")),
    "export quantise of other data": lambda f: export_commands.quantise(
        f / "m.nir", Output(f / "c.nir"), recordings=Recordings(input=f / "q.npz")),
    "export lava": lambda f: export_commands.lava(f / "q.nir", Output(f / "d.net", no_check=True)),
    "export onnx": lambda f: export_commands.onnx(f / "m.nir", Output(f / "e.onnx"),
                                                  recordings=Recordings(input=f / "x.npz")),
}
REFUSED = ("refused", "cannot hold", "no spikes", "other data")


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_left_behind(name, unchanged, folder):
    if any(word in name for word in REFUSED):
        with pytest.raises((HardspikeError, KeyboardInterrupt)):
            CALLS[name](folder)
    else:
        CALLS[name](folder)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, None])
def test_the_one_context_manager_restores(error, unchanged):
    with pytest.raises(error) if error else contextlib.nullcontext(), fixed_point._exact_float32() as threads:
        assert threads == 2 and torch.get_num_threads() == 1
        assert torch.backends.mkldnn.matmul.fp32_precision == torch.backends.mkldnn.conv.fp32_precision == "ieee"
        if error:
            raise error


def test_nobody_else_sets_anything():
    """A call of a setter, or an assignment to torch.backends, in no other function of targets and export."""
    found = set()
    for path in [*ROOT.glob("targets/**/*.py"), *ROOT.glob("export/**/*.py")]:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                found |= {(str(path.relative_to(ROOT)), function.name) for node in ast.walk(function)
                          if _sets(node)}
    assert found == ALLOWED


def _sets(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).rpartition(".")[2] in SETTERS
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    return any("torch.backends" in ast.unparse(target) or "fp32_precision" in ast.unparse(target)
               for target in targets)
