"""The scan in C++ against plain autograd and against the torch code; where it is not to be had; what is saved."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import compiled
from trainer import native as native_code
from trainer.networks import NetworkConfig, build
from trainer.neurons import scan_native
from trainer.neurons.dynamics import Dynamics
from trainer.neurons.leaky import Leaky
from trainer.neurons.scan import implementation, lif_backward, lif_forward, lif_scan
from trainer.neurons.spikes import SURROGATES, Surrogate
from trainer.neurons.windows import WINDOWS, Windows

RESETS = ("subtract", "zero", "none", "subtract_leaky")
STEPS = 6


@pytest.fixture
def native():
    compiled("neurons/scan_native")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache and a process that has not looked for a compiler yet."""
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path))
    native_code.library.cache_clear()
    yield tmp_path
    native_code.library.cache_clear()


def layer(shape=(3, 700), dtype=torch.float64, each=True):
    """current, gradients of spikes and membrane, beta, threshold; more neurons than a block, in no whole number."""
    size = shape[-1:] if each else ()
    return (*(torch.randn(STEPS, *shape, dtype=dtype) * scale for scale in (2, 1, 1)),
            torch.rand(size, dtype=dtype) / 2 + 0.4, torch.rand(size, dtype=dtype) + 0.4)


def phi(surrogate, z, threshold):
    """The definitions of spikes.py, without its in-place operations."""
    def f(z):
        x = z * surrogate.slope
        return {"arctan": torch.atan(math.pi * x) / math.pi + 0.5, "sigmoid": torch.sigmoid(4 * x),
                "fast_sigmoid": x / (1 + 2 * x.abs()) + 0.5}[surrogate.name]

    return (f(z) - f(-threshold)) / (1 - f(-threshold)) if surrogate.rest_at_zero else f(z)


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, threshold, surrogate):
        ctx.save_for_backward(z, threshold)
        ctx.surrogate = surrogate
        return (z > 0).to(z.dtype)

    @staticmethod
    def backward(ctx, grad):
        with torch.enable_grad():
            z, threshold = (x.detach().requires_grad_() for x in ctx.saved_tensors)
            return *torch.autograd.grad(phi(ctx.surrogate, z, threshold), (z, threshold), grad, allow_unused=True), None


@pytest.mark.parametrize(("name", "rest_at_zero", "reset"), itertools.product(SURROGATES, [False, True], RESETS))
def test_values_equal_plain_autograd(native, name, rest_at_zero, reset):
    surrogate = Surrogate(name, 0.8, rest_at_zero)
    for hard, detach, each in itertools.product([False, True], repeat=3):
        current, weights, others, *parameters = layer(each=each)
        leaves = [x.requires_grad_() for x in (current, *parameters)]
        beta, threshold = parameters
        spikes, membranes = [], []
        for t, step in enumerate(current):
            u = step
            if t:
                before = spikes[-1].detach() if detach else spikes[-1]
                kept = {"zero": membranes[-1] * (1 - before), "subtract_leaky": membranes[-1] - before * threshold}
                u = beta * kept.get(reset, membranes[-1]) + step
                u = u - before * threshold if reset == "subtract" else u
            z = u - threshold
            membranes.append(u)
            spikes.append(Spike.apply(z, threshold, surrogate) if hard else phi(surrogate, z, threshold))
        plain = torch.stack(spikes), torch.stack(membranes)
        assert implementation(current, beta, threshold).startswith("native")
        ours = lif_scan(current, beta, threshold, surrogate, hard=hard, reset=reset, detach_reset=detach)
        found = [torch.autograd.grad((s * weights).sum() + (u * others).sum(), leaves) for s, u in (ours, plain)]
        for one, two in zip((*ours, *found[0]), (*plain, *found[1]), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12 * two.abs().max().item())


@pytest.mark.parametrize(("dtype", "reset"), itertools.product([torch.float32, torch.float64], RESETS))
def test_both_implementations_agree(native, dtype, reset):
    """Hard: spikes and membranes bit for bit. Smooth and backward: 1e-6 in float32, 1e-12 in float64, of the norm; sums
    over neurons, of the norms of their factors, since torch adds up in float32."""
    bound = 1e-6 if dtype == torch.float32 else 1e-12

    def close(one, two, scale=None):
        assert one.dtype == two.dtype == dtype and two.norm() > 0
        assert (one - two).norm() <= bound * (scale or two.norm())

    backwards = [(Surrogate(name, 1.3, rest), None) for name in SURROGATES for rest in (False, True)]
    backwards += [(Surrogate(), Windows(name, torch.rand(STEPS).double() + 0.2, 0.7)) for name in WINDOWS]
    for (surrogate, windows), hard, each in itertools.product(backwards, [True, False], [True, False]):
        if windows and not hard:
            continue
        current, grad, grad_membrane, beta, threshold = layer(dtype=dtype, each=each)
        forward = beta, threshold, Dynamics(surrogate, hard, reset)
        s, u = lif_forward(current, *forward)
        ours = scan_native.forward(current, *forward)
        if hard:
            assert torch.equal(s, ours[0]) and torch.equal(u, ours[1]) and s.sum() > 1000
        close(ours[0], s)
        close(ours[1], u)
        for detach, membrane_too, learned in itertools.product([True, False], repeat=3):
            options = beta, threshold, Dynamics(surrogate, hard, reset, detach, windows)
            arguments = (grad, grad_membrane if membrane_too else None, u, *options, (learned,) * 2)
            (one, *ones), (two, *twos) = scan_native.backward(*arguments), lif_backward(*arguments)
            close(one, two)
            for sum_one, sum_two in zip(ones, twos, strict=True):
                if learned:
                    close(sum_one, sum_two, u.norm() * two.norm())
                else:
                    assert sum_one is None and sum_two is None


def both(monkeypatch, current, loss, beta=0.9, threshold=0.7, **options):
    """Spikes, membranes and gradients of the current, from the library and from torch."""
    found = []
    for kernel in ("", "torch"):
        monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
        leaf = current.detach().requires_grad_()
        spikes, membrane = Leaky(torch.as_tensor(beta), torch.as_tensor(threshold),
                                 **{"surrogate": Surrogate("arctan")} | options)(leaf)
        found.append((spikes, membrane, *torch.autograd.grad(loss(spikes), leaf)))
    return found


def channels_last():
    return torch.randn(20, 3, 4, 5).contiguous(memory_format=torch.channels_last).unflatten(0, (5, 4))


LAYOUTS = {
    "turned": lambda: torch.randn(7, 5, 4).permute(2, 1, 0),
    "every second": lambda: torch.randn(5, 6, 8)[..., ::2],
    "expanded": lambda: torch.randn(6, 8).expand(5, 6, 8),
    "channels last": channels_last,
    "one step": lambda: torch.randn(1, 4, 9),
    "no axes": lambda: torch.randn(9),
    "no steps": lambda: torch.randn(0, 4, 9),
    "no samples": lambda: torch.randn(5, 0, 9),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_and_size(native, monkeypatch, layout):
    current = LAYOUTS[layout]() * 2
    for loss in (lambda s: (s.mean(0) * 3).sum(), lambda s: (s.flip(-1) * torch.arange(s.numel()).view_as(s)).sum()):
        ours, torch_ones = both(monkeypatch, current, loss)
        for one, two in zip(ours, torch_ones, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_parameters_a_channel_in_channels_last(native, monkeypatch):
    beta, threshold = torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.2
    for one, two in zip(*both(monkeypatch, channels_last(), torch.Tensor.sum, beta, threshold, hard=True),
                        strict=True):
        torch.testing.assert_close(one, two)
        assert one.stride() == two.stride() and not one.is_contiguous()


@pytest.mark.parametrize(("reset", "hard"), itertools.product(RESETS, [True, False]))
def test_infinite_and_missing_numbers_go_where_torch_lets_them_go(native, monkeypatch, reset, hard):
    current = torch.randn(5, 4, 40)
    current[1, :, ::4], current[2, :, 1::4], current[3, :, 2::4] = float("inf"), -float("inf"), float("nan")
    for name in SURROGATES:
        ours, torch_ones = both(monkeypatch, current, torch.Tensor.sum, hard=hard, reset_mechanism=reset,
                                surrogate=Surrogate(name))
        for one, two in zip(ours, torch_ones, strict=True):
            torch.testing.assert_close(one, two, equal_nan=True)


def test_results_do_not_depend_on_the_number_of_threads(native):
    current, grad, _, beta, threshold = layer((40, 700), torch.float32, each=False)
    beta, threshold = beta.requires_grad_(), threshold.requires_grad_()
    before, results = torch.get_num_threads(), []
    assert current.numel() > scan_native.GRAIN
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = current.clone().requires_grad_()
            spikes, membrane = lif_scan(leaf, beta, threshold, Surrogate(), hard=False, reset="subtract",
                                        detach_reset=False)
            results.append((spikes, membrane, *torch.autograd.grad((spikes * grad).sum(), [leaf, beta, threshold])))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(result, results[0], strict=True))


# ------------------------------------------------------------------------------------- which one runs


@pytest.mark.parametrize(("variable", "value", "reason"), [
    ("HARDSPIKE_KERNEL", "torch", "HARDSPIKE_KERNEL"), ("PATH", "", "no C++ compiler"),
    ("CXX", "absent", "no C++ compiler"), ("CXX", "false", "false failed"),
    ("HARDSPIKE_CACHE", "/dev/null", "cannot be written")])
def test_torch_runs_where_nothing_can_be_compiled(fresh, monkeypatch, variable, value, reason):
    monkeypatch.setenv(variable, value)
    current, _, _, beta, threshold = layer()
    which = implementation(current, beta, threshold)
    assert which.startswith("torch: ") and reason in which
    assert Leaky(hard=True)(torch.ones(3, 4))[0].sum() > 0


def test_torch_runs_on_what_the_library_cannot_take(native):
    current, _, _, beta, threshold = layer()
    for other, leak, reason in ((current.to("meta"), beta, "meta"), (current.bfloat16(), beta, "bfloat16"),
                                (current, beta.float(), "another type"), (current[:0], beta, "no elements")):
        which = implementation(other, leak, threshold)
        assert which.startswith("torch: ") and reason in which


def test_two_processes_that_compile_at_once_leave_one_good_library(native, tmp_path):
    code = ("from trainer import native; native.FLAGS += ('-O0',); "
            "library, path = native.library('neurons/scan_native'); "
            "assert library is not None, path; print(path)")
    both = [subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             cwd=Path(__file__).parents[2], env={**os.environ, "HARDSPIKE_CACHE": str(tmp_path)})
            for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    libraries = {Path(out.strip()) for out, _ in outputs}
    checksums = {path.with_name(f"{path.name}.sha256") for path in libraries}
    assert libraries | checksums == set((tmp_path / "kernels").iterdir())


# ------------------------------------------------------------------------------------------- memory


def saved_bytes(network, frames) -> int:
    """What a forward pass keeps for the backward pass, parameters and the input aside."""
    kept, known = {}, {x.untyped_storage().data_ptr() for x in (frames, *network.parameters(), *network.buffers())}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in known and x.numel() > 1:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        network(frames).sum().backward()
    return sum(kept.values())


@pytest.mark.parametrize(("kernel", "hard"), itertools.product(["", "torch"], [True, False]))
def test_a_layer_saves_one_tensor_more_than_no_neurons(monkeypatch, kernel, hard):
    monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
    frames = torch.rand(8, 4, 2, 34, 34)
    membranes = {}
    network, without = (build(NetworkConfig(), (2, 34, 34), 10) for _ in range(2))
    network.set_mode(hard=hard)
    network(frames, membranes=membranes)
    for name in network.neurons():
        without.layers[name] = torch.nn.Identity()
    one_each = sum(u.nbytes for u in membranes.values())
    assert saved_bytes(network, frames) <= 1.02 * saved_bytes(without, frames) + one_each
