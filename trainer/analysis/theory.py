"""What SAST's theory asks of a network, computed from the network itself."""

import torch
from torch import nn

from trainer.networks import Network
from trainer.neurons.leaky import Leaky
from trainer.neurons.levels import LevelLeaky
from trainer.neurons.recurrent import Recurrent


def contraction(neuron: Leaky) -> tuple[float, float]:
    """(loose, tight) contraction factor q of one smooth layer's state update, the worst over its neurons.

    Loose, for reset by subtraction: lambda + theta*L_phi (SAST eq. 19). Tight: the largest |du[t]/du[t-1]|, which is
    max(lambda, |lambda - theta*L_phi|) there; where what is subtracted leaks, lambda*theta stands for theta. The paper
    has no bound for reset to zero; ours for u -> lambda*(1 - phi(u - theta))*u are lambda*(1 + max|u*phi'|) and
    lambda*max|1 - phi - u*phi'|, the maxima taken on a fine grid.
    """
    beta, theta = neuron.beta.detach().double().clamp(0, 1), neuron.threshold.detach().double()
    lipschitz = neuron.surrogate.lipschitz(theta)
    if isinstance(neuron, LevelLeaky):  # u -> lambda*(u - theta*s), and s rises by at most L_phi at each threshold
        gain = theta * neuron.levels * lipschitz
        return (beta * (1 + gain)).max().item(), (beta * torch.maximum(gain - 1, torch.ones(()))).max().item()
    if neuron.reset == "subtract":
        gain = theta * lipschitz
        return (beta + gain).max().item(), torch.maximum(beta, (beta - gain).abs()).max().item()
    if neuron.reset == "subtract_leaky":
        gain = theta * lipschitz
        return (beta * (1 + gain)).max().item(), (beta * (1 - gain).abs().clamp(min=1)).max().item()
    if neuron.reset == "zero":
        width = 50 / neuron.surrogate.slope
        u = torch.linspace(-width, width, 20001, dtype=torch.float64).view(-1, *[1] * theta.ndim) + theta
        phi, slope = neuron.surrogate(u - theta, theta), neuron.surrogate.derivative(u - theta, theta)
        loose, tight = 1 + (u * slope).abs().amax(0), (1 - phi - u * slope).abs().amax(0)
        return (beta * loose).max().item(), (beta * tight).max().item()
    return beta.max().item(), beta.max().item()


def report(network: Network, hard: bool) -> dict:
    """phi(-theta), q loose and tight, and whether the run is theory-aligned; with the reasons where it is not.

    Aligned means: the smooth network of SAST eqs. 3-6 and 16, loose q < 1 (assumption IV.4), no MaxPool, no BatchNorm
    in training mode (remark II.2).
    """
    neurons = list(network.neurons().values())
    loose, tight = (max(column) for column in zip(*(contraction(neuron) for neuron in neurons), strict=True))
    kinds = {type(layer) for layer in network.layers.values()}
    surrogate = neurons[0].surrogate
    reasons = [reason for holds, reason in (
        (hard, "hard forward"),
        (loose >= 1, f"loose q = {loose:.3g} >= 1"),
        (any(n.reset != "subtract" for n in neurons), "reset is not by subtraction (eq. 4)"),
        (any(n.detach_reset for n in neurons), "reset path detached: the gradient is not exact"),
        (any(n.beta.requires_grad for n in neurons), "leak is learned, and q with it"),
        (any(isinstance(n, Recurrent) for n in neurons), "a layer hears itself (eq. 3 is a chain)"),
        (bool(network.sums), "branches meet in sums (eq. 3 is a chain)"),
        (any(isinstance(n, LevelLeaky) for n in neurons), "neurons of several thresholds"),
        (surrogate.rest_at_zero, "shifted surrogate leaves [0, 1]"),
        (bool(kinds & {nn.BatchNorm1d, nn.BatchNorm2d}), "BatchNorm in training mode"),
        (nn.MaxPool2d in kinds, "MaxPool"),
        (network.readout != "linear", "readout is not eq. 6"),
    ) if holds]
    rest = max(surrogate.rest(n.threshold.detach()).max().item() for n in neurons)
    return {
        "phi(-theta)": 0.0 if surrogate.rest_at_zero else rest,
        "q_loose": loose,
        "q_tight": tight,
        "theory_aligned": not reasons,
        "why_not": "; ".join(reasons),
    }
