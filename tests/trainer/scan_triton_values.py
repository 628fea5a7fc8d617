"""What the Triton kernels compute. test_scan_triton.py runs this file in a process of its own: on the GPU where
there is one, else in Triton's interpreter, which TRITON_INTERPRET=1 switches on before Triton is imported."""

import itertools
import math
import os

import pytest
import torch

from tests.trainer.test_scan_kernel import LAYOUTS, channels_last, phi
from trainer.neurons import scan, scan_triton
from trainer.neurons.dynamics import Dynamics
from trainer.neurons.leaky import Leaky
from trainer.neurons.spikes import SURROGATES, Surrogate
from trainer.neurons.windows import WINDOWS, Windows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RESETS = ("subtract", "zero", "none", "subtract_leaky")
STEPS = 4
SHAPES = {"one program": (2, 80), "two programs": (3, 100)}


@pytest.fixture(autouse=True)
def device():
    torch.manual_seed(0)
    with torch.device(DEVICE):
        yield


@pytest.fixture
def taken(monkeypatch):
    """`lif_scan` takes the kernels for tensors on the CPU, too."""
    if DEVICE == "cpu":
        monkeypatch.setattr(scan, "_kernels", lambda current: scan_triton)
        monkeypatch.setattr(scan_triton, "obstacle", lambda current, *_: os.environ.get("HARDSPIKE_KERNEL") or (
            None if current.numel() else "no elements"))


def layer(shape="one program", dtype=torch.float64, each=True):
    """current, gradients of spikes and membrane, beta, threshold."""
    size = SHAPES[shape][-1:] if each else ()
    return (*(torch.randn(STEPS, *SHAPES[shape], dtype=dtype) * scale for scale in (2, 1, 1)),
            torch.rand(size, dtype=dtype) / 2 + 0.4, torch.rand(size, dtype=dtype) + 0.4)


@pytest.mark.parametrize(("name", "rest_at_zero", "reset"), itertools.product(SURROGATES, [False, True], RESETS))
def test_smooth_values_equal_plain_autograd(name, rest_at_zero, reset):
    surrogate, each = Surrogate(name, 0.8, rest_at_zero), name != "sigmoid"
    current, weights, others, *parameters = layer(each=each)
    leaves = [x.requires_grad_() for x in (current, *parameters)]
    beta, threshold = parameters
    spikes, membranes = [], []
    for t, step in enumerate(current):
        u = step
        if t:
            kept = {"zero": membranes[-1] * (1 - spikes[-1]),
                    "subtract_leaky": membranes[-1] - spikes[-1] * threshold}
            u = beta * kept.get(reset, membranes[-1]) + step
            u = u - spikes[-1] * threshold if reset == "subtract" else u
        membranes.append(u)
        spikes.append(phi(surrogate, u - threshold, threshold))
    plain = torch.stack(spikes), torch.stack(membranes)
    gradients = torch.autograd.grad((plain[0] * weights).sum() + (plain[1] * others).sum(), leaves)
    with torch.no_grad():
        options = *parameters, Dynamics(surrogate, False, reset)
        ours = scan_triton.forward(current, *options)
        found = scan_triton.backward(weights, others, ours[1], *options, (True, True))
    for one, two in zip((*ours, *found), (*plain, *gradients), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12 * two.abs().max().item())


@pytest.mark.parametrize(("dtype", "reset", "each"), itertools.product([torch.float32, torch.float64], RESETS,
                                                                       [True, False]))
def test_hard_spikes_and_membranes_equal_torch_bit_for_bit(dtype, reset, each):
    current, _, _, beta, threshold = layer("two programs", dtype, each)
    tiny = torch.finfo(dtype).tiny  # for subnormal numbers, which must not become 0
    on_the_threshold = (2 * current).round() / 2, torch.full_like(beta, 0.5), torch.full_like(threshold, 0.5)
    for values in ((current, beta, threshold), (current * tiny, beta, threshold * tiny), on_the_threshold):
        s, u = scan.lif_forward(*values, Dynamics(Surrogate(), True, reset))
        s_ours, u_ours = scan_triton.forward(*values, Dynamics(Surrogate(), True, reset))
        assert torch.equal(s, s_ours) and torch.equal(u, u_ours) and s.sum() > 100


@pytest.mark.parametrize(("name", "dtype"), itertools.product(SURROGATES, [torch.float32, torch.float64]))
def test_smooth_spikes_over_the_whole_range(name, dtype):
    z = torch.cat([torch.linspace(-span, span, 256, dtype=dtype) for span in (1, 5, 40)])
    threshold, surrogate = torch.zeros((), dtype=dtype), Surrogate(name, 1 / math.pi)
    found = scan_triton.forward(z[None], threshold, threshold, Dynamics(surrogate, False, "none"))[0][0]
    assert (found.double() - phi(surrogate, z.double(), threshold.double())).abs().max() <= 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize(("dtype", "reset", "detach"), itertools.product([torch.float32, torch.float64], RESETS,
                                                                         [True, False]))
def test_backward_agrees_with_torch(dtype, reset, detach):
    """1e-6 in float32, 1e-12 in float64, of the norm; sums over neurons, of the norms of their factors, since torch
    adds up in float32."""
    bound = 1e-6 if dtype == torch.float32 else 1e-12
    cases = [(Surrogate(name, 1.3, rest), None) for name in SURROGATES for rest in (False, True)]
    cases += [(Surrogate(), Windows(name, torch.rand(STEPS).double() + 0.2, 0.7)) for name in WINDOWS]
    for i, (surrogate, windows) in enumerate(cases):
        current, grad, grad_membrane, beta, threshold = layer(dtype=dtype, each=i % 4 < 2)
        hard = windows is not None or i % 3 > 0
        options = beta, threshold, Dynamics(surrogate, hard, reset, detach, windows)
        u = scan.lif_forward(current, *options)[1]
        arguments = grad, grad_membrane if i % 2 else None, u, *options, (True, True)
        (one, *ones), (two, *twos) = scan_triton.backward(*arguments), scan.lif_backward(*arguments)
        assert one.dtype == dtype and (one - two).norm() <= bound * two.norm() and two.norm() > 0
        for sum_one, sum_two in zip(ones, twos, strict=True):
            assert sum_one.dtype == dtype and sum_one.shape == sum_two.shape
            assert (sum_one - sum_two).norm() <= bound * u.norm() * two.norm()


def test_only_learned_parameters_get_gradients_and_the_same_ones_each_time():
    current, grad, _, beta, threshold = layer("two programs", torch.float32, each=False)
    for learned in itertools.product([False, True], repeat=2):
        arguments = grad, None, current, beta, threshold, Dynamics(Surrogate(), True, "subtract"), learned
        first, second = scan_triton.backward(*arguments)[1:], scan_triton.backward(*arguments)[1:]
        assert tuple(x is not None for x in first) == learned
        assert all(one is None or torch.equal(one, two) for one, two in zip(first, second, strict=True))


def both(monkeypatch, current, beta=0.9, threshold=0.7, **options):
    """Spikes, membranes and gradients of the current, from the kernels and from torch."""
    found = []
    for kernel in ("", "torch"):
        monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
        leaf = current.detach().to(DEVICE).requires_grad_()
        beta, threshold = torch.as_tensor(beta), torch.as_tensor(threshold)
        assert scan.implementation(leaf, beta, threshold).startswith(kernel or ("triton" if leaf.numel() else "torch"))
        spikes, membrane = Leaky(beta, threshold, **{"surrogate": Surrogate("arctan")} | options)(leaf)
        weights = torch.arange(leaf.numel(), dtype=leaf.dtype).view_as(leaf)
        found.append((spikes, membrane, *torch.autograd.grad((spikes * weights).sum(), leaf)))
    return zip(*found, strict=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_and_size(taken, monkeypatch, layout):
    for one, two in both(monkeypatch, LAYOUTS[layout]() * 2):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_parameters_a_channel_in_channels_last(taken, monkeypatch):
    beta, threshold = torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.2
    for one, two in both(monkeypatch, channels_last(), beta, threshold, hard=True):
        torch.testing.assert_close(one, two)
        assert one.stride() == two.stride() and not one.is_contiguous()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, in which the interpreter computes
@pytest.mark.parametrize(("reset", "hard"), itertools.product(RESETS, [True, False]))
def test_infinite_and_missing_numbers_go_where_torch_lets_them_go(taken, monkeypatch, reset, hard):
    current = torch.randn(STEPS, 40)
    current[1, ::4], current[2, 1::4], current[3, 2::4] = math.inf, -math.inf, math.nan
    for name in SURROGATES:
        for one, two in both(monkeypatch, current, hard=hard, reset_mechanism=reset, surrogate=Surrogate(name)):
            # terms as large as the weights, which count the values, may cancel
            torch.testing.assert_close(one, two, rtol=1.3e-6, atol=1e-6 * current.numel(), equal_nan=True)


def test_windows_chosen_on_the_way_are_left_to_torch(taken):
    current, grad, _, beta, threshold = layer(each=False)
    windows = Windows("box", torch.zeros(STEPS, dtype=torch.float64, device="cpu"),
                      choose=lambda t, z, total, later, rest: 0.1 + t)
    spikes, _ = scan.lif_scan(current.requires_grad_(), beta, threshold, Surrogate(), hard=True, reset="subtract",
                              detach_reset=True, windows=windows)
    spikes.backward(grad)
    assert windows.choose is None and windows.widths.tolist() == [0.1, 1.1, 2.1, 3.1]
