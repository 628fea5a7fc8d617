"""The scan as Triton kernels: their values, in a process of their own; what the compiler makes of them; where torch has
to run."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainer.neurons import scan_triton
from trainer.neurons.dynamics import Dynamics
from trainer.neurons.scan import implementation
from trainer.neurons.spikes import SURROGATES, Surrogate
from trainer.neurons.windows import WINDOWS, Windows

ROOT = Path(__file__).parents[2]
GPU = torch.cuda.is_available()


def triton():
    return pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture
def untried():
    """A process that has not tried the kernels yet."""
    scan_triton._trial.cache_clear()
    yield
    scan_triton._trial.cache_clear()


def test_values():
    version = tuple(map(int, triton().__version__.split(".")[:2]))
    if not GPU and version < (3, 7) and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("Triton's interpreter before 3.7 does not work with NumPy 2.4")
    environment = {key: value for key, value in os.environ.items() if key != "HARDSPIKE_KERNEL"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/trainer/scan_triton_values.py"],
                          cwd=ROOT, text=True,
                          env=environment if GPU else {**environment, "TRITON_INTERPRET": "1"},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout


# ------------------------------------------------------------------------------------- ahead of time, without a GPU


@pytest.fixture(params=[80, 90])
def compiled(request, monkeypatch, tmp_path):
    """What `scan_triton` would launch on a GPU of this compute capability, compiled, in a list."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton's interpreter is on")
    module, kernels = triton(), []
    from triton.backends.compiler import GPUTarget

    run, target = module.runtime.JITFunction.run, GPUTarget("cuda", request.param, 32)
    gpu = SimpleNamespace(get_current_device=lambda: request.param, get_current_stream=lambda device: 0,
                          get_current_target=lambda: target)
    monkeypatch.setattr(module.runtime.driver, "_active", gpu)
    monkeypatch.setattr(module.runtime.JITFunction, "run", lambda self, *arguments, **options: kernels.append(
        run(self, *arguments, **{**options, "warmup": True})))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return kernels


def test_every_kernel_compiles(compiled):
    cases = [(Surrogate(name, rest_at_zero=rest), None) for name in SURROGATES for rest in (False, True)]
    cases += [(Surrogate(), Windows(name, torch.ones(3).double())) for name in WINDOWS]
    # enough that every branch is compiled in both types; all combinations would take minutes
    sizes, dtypes = itertools.cycle([1, 80]), itertools.cycle([torch.float32, torch.float64, torch.float32])
    for (surrogate, windows), (reset, detach) in itertools.product(cases, [("subtract", False), ("zero", False),
                                                                           ("zero", True), ("subtract_leaky", False)]):
        size, dtype, hard = next(sizes), next(dtypes), windows is not None or detach
        current, (beta, threshold) = torch.ones(3, 2, size, dtype=dtype), torch.ones(2, size, dtype=dtype)
        dynamics = Dynamics(surrogate, hard, reset, detach, windows)
        scan_triton.forward(current, beta, threshold, dynamics)
        scan_triton.backward(current, current if hard else None, current, beta, threshold, dynamics, (size > 1, True))
    assert len(compiled) == 8 * len(cases) and all(kernel.asm["cubin"] for kernel in compiled)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none", "subtract_leaky"])
def test_no_product_in_a_membrane_is_fused_with_a_sum(compiled, reset):
    """`.rn`: neither may the assembler."""
    scan_triton.forward(torch.empty(3, 512), torch.tensor(0.9), torch.tensor(1.0), Dynamics(Surrogate(), True, reset))
    ptx = compiled[0].asm["ptx"]
    assert "fma." not in ptx and "mul.rn.f32" in ptx and "add.rn.f32" in ptx
    assert not any(f"{operation}.f32" in ptx or "ftz" in ptx for operation in ("mul", "add", "sub"))


# ------------------------------------------------------------------------------------------------ which one runs


@pytest.mark.skipif(GPU, reason="here is a GPU")
def test_torch_takes_over_with_one_line_where_the_kernels_fail(untried, capsys):
    triton()
    reasons = [scan_triton._trial(torch.device("cuda:0")) for _ in range(2)]
    lines = capsys.readouterr().err.splitlines()
    assert reasons[0].startswith("Triton 3") and reasons[0] == reasons[1]
    assert len(lines) == 1 and "torch code runs instead" in lines[0]


def test_torch_runs_without_triton(untried, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert scan_triton._trial(torch.device("cuda:0")).startswith("Triton: ") and not capsys.readouterr().err


def test_the_interpreter_is_never_used_by_accident():
    triton()
    code = "import torch; from trainer.neurons import scan_triton; print(scan_triton._trial(torch.device('cuda:0')))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"},
                           capture_output=True, text=True, check=True)
    assert "TRITON_INTERPRET" in shown.stdout and not shown.stderr


def test_a_device_gets_the_kernels_made_for_it(monkeypatch):
    current, parameter = torch.ones(2, 3), torch.tensor(0.5)
    assert "cpu" in scan_triton.obstacle(current, parameter, parameter)
    assert "triton" not in implementation(current, parameter, parameter)
    if GPU:
        assert implementation(current.cuda(), parameter.cuda(), parameter.cuda()).startswith("triton: ")
