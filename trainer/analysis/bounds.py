"""SAST's bounds, evaluated on a trained network: how far an input or a weight can move the logits and the loss.

The formulas of the paper's text were lost where it was taken from; they are reconstructed here from its prose and proof
sketches. Of the whole set

- reconstructed: Gamma_T = 1 + q + ... + q^(T-1) = (1 - q^T)/(1 - q) (eq. 1), ||grad_z l|| <= sqrt(2) and
  ||Hessian_z l|| <= 1/2 of the cross-entropy (eq. 21), the membranes' bound (eq. 23), the input's Lipschitz constant
  K = ||W_o||/sqrt(T) * product of L_phi*||A_l||*Gamma_T (eq. 25), smoothness L = 1/2 C_J^2 + sqrt(2) C_H (eq. 27), the
  first-order view of SAM, |max L(w + eps) - L(w) - rho*||grad L||| <= L*rho^2/2 (eqs. 28, 29), loss stability
  |l(x') - l(x)| <= sqrt(2)*K*||x' - x|| (proposition IV.13);
- not to be had: the closed forms of C_J and C_H (eqs. 42-46). `smoothness` derives its own from the same ingredients
  (lemma A.1); they may be smaller or larger than the paper's. Eqs. 31 and 32 (convergence) are reconstructable up to
  their constants only, and are not evaluated.

Gamma_T is finite for every q, and so are all bounds here; only where q < 1 (assumption IV.4) do they stop growing with
T.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardspike import HardspikeError
from trainer.analysis.spectral import Block, blocks, operator_norm
from trainer.analysis.theory import contraction
from trainer.networks import Network
from trainer.neurons.leaky import Leaky
from trainer.neurons.levels import LevelLeaky


@dataclass(frozen=True)
class Bounds:
    """What SAST's theory says of a network, for one contraction factor q.

    Args:
        q: contraction factor of the state update.
        gamma: Gamma_T (eq. 1).
        norms: name of the neurons, or "readout" -> operator norm of the block before them.
        lipschitz: of the logits in the input, K = ||f(x') - f(x)||/||x' - x||, norms over time and pixels (eq. 25).
        membranes: neurons -> largest Euclidean norm of a layer's membrane at one time step (eq. 23).
        jacobian: C_J, largest ||df/dw|| (eq. 26); None where the parameters are no direct entries (`why_not`).
        hessian: C_H, largest ||d^2 f/dw^2||; likewise.
        smoothness: Lipschitz constant of the loss's gradient in the parameters (eq. 27); likewise.
        why_not: the reason for a None.
    """

    q: float
    gamma: float
    norms: dict[str, float]
    lipschitz: float
    membranes: dict[str, float]
    jacobian: float | None
    hessian: float | None
    smoothness: float | None
    why_not: str = ""

    @property
    def loss_stability(self) -> float:
        """Lipschitz constant of the loss in the input (proposition IV.13)."""
        return math.sqrt(2) * self.lipschitz


def geometric(q: float, steps: int) -> float:
    """Gamma_T = 1 + q + ... + q^(T-1) (SAST eq. 1)."""
    return sum(q**k for k in range(steps))


def bounds(network: Network, frames: Tensor) -> dict[str, Bounds]:
    """SAST's bounds with the loose q (eq. 19) and with the tight one of `theory.contraction`, which is as true.

    Args:
        network: with reset by subtraction and a linear readout; looked at in evaluation mode.
        frames: (T, B, C, H, W): T, and the largest ||x_t|| (assumption IV.1).

    Raises:
        HardspikeError: the theory says nothing of this network; names what stands against it.
    """
    neurons = list(network.neurons().values())
    for holds, reason in ((any(n.reset != "subtract" for n in neurons), "resets other than by subtraction"),
                          (any(n.plif for n in neurons), "an input that a neuron scales (plif)"),
                          (any(isinstance(n, LevelLeaky) for n in neurons), "neurons of several thresholds"),
                          (any(n.surrogate.rest_at_zero for n in neurons), "a shifted surrogate, which leaves [0, 1]"),
                          (network.readout != "linear", "a readout other than eq. 6")):
        if holds:
            raise HardspikeError(f"SAST's bounds say nothing of {reason}; train without")
    chain = blocks(network, tuple(frames.shape[2:]))
    norms = {block.name: block.norm() for block in chain}
    loose, tight = (max(column) for column in zip(*(contraction(neuron) for neuron in neurons), strict=True))
    largest = frames.double().flatten(2).norm(dim=2).max().item()
    return {name: _bounds(network, chain, norms, q, len(frames), largest)
            for name, q in (("loose", loose), ("tight", tight))}


def _bounds(network: Network, chain: list[Block], norms: dict[str, float], q: float, steps: int,
            largest: float) -> Bounds:
    neurons = network.neurons()
    gamma = geometric(q, steps)
    slope = max(n.surrogate.lipschitz(n.threshold.detach().double()).max().item() for n in neurons.values())
    lipschitz = norms["readout"] / math.sqrt(steps)
    membranes = {}
    for block, radius in zip(chain[:-1], _radii(chain, largest)[:-1], strict=True):
        lipschitz *= slope * norms[block.name] * gamma
        neuron = neurons[block.name]
        beta = neuron.beta.detach().double().clamp(0, 1).max().item()
        theta = neuron.threshold.detach().double().max().item()
        bias = block.layers(torch.zeros(1, *block.given, dtype=torch.float64)).norm().item()
        membranes[block.name] = geometric(beta, steps) * (
            norms[block.name] * radius + bias + theta * math.sqrt(math.prod(block.made)))
    why_not = ""
    if any(isinstance(layer, _BatchNorm) for layer in network.layers.values()):
        why_not = "BatchNorm: the blocks' entries are no parameters of their own (assumption IV.3)"
    elif any(p.requires_grad for n in neurons.values() for p in (n.beta, n.threshold)):
        why_not = "leaks or thresholds are learned"
    jacobian = hessian = constant = None
    if not why_not:
        jacobian, hessian = smoothness(network, chain, norms, gamma, largest)
        constant = jacobian**2 / 2 + math.sqrt(2) * hessian
    return Bounds(q, gamma, norms, lipschitz, membranes, jacobian, hessian, constant, why_not)


def _radii(chain: list[Block], largest: float) -> list[float]:
    """Largest Euclidean norm of what enters each block at one time step: ||x_t||, then sqrt(n) as 0 <= phi <= 1."""
    return [largest, *(math.sqrt(math.prod(before.made)) for before, _ in pairwise(chain))]


def smoothness(network: Network, chain: list[Block], norms: dict[str, float], gamma: float,
               largest: float) -> tuple[float, float]:
    """C_J and C_H of SAST eq. 26, by our own derivation (eqs. 42-46 could not be recovered).

    Along a unit direction of the parameters, with d_l its part in layer l, dots for derivatives, U_l = max_t ||u'_t||
    and V_l = max_t ||u''_t||, the recurrence u_t = lambda*u_{t-1} + A s_t + b - theta*phi(u_{t-1} - theta) gives

        U_l <= Gamma*(a_l*L*U_{l-1} + c_l*||d_l||)                        c_l = sqrt((k_l*R_{l-1})^2 + m_l)
        V_l <= Gamma*(theta*H*U_l^2 + a_l*(L*V_{l-1} + H*U_{l-1}^2) + 2*k_l*||d_l||*L*U_{l-1})
        ||f'|| <= ||W_o||*L*U_L + sqrt(R_L^2 + 1)*||d_o||
        ||f''|| <= ||W_o||*(L*V_L + H*U_L^2) + 2*||d_o||*L*U_L

    with L = L_phi, H = sup|phi''|, a_l = ||A_l||, R_l the largest norm of the layer's spikes, m_l the number of places
    that share a bias (1 where dense) and k_l how far a change of the weights of Frobenius norm 1 can lengthen its
    input: 1 where dense, ceil(kernel/stride) of a convolution, in so many of whose windows a pixel lies along each
    axis; times the norm of the pooling in front. C_J takes the worst split of the unit length over the layers
    (Cauchy-Schwarz), C_H every layer's worst at once.
    """
    neurons = network.neurons()
    slope = max(n.surrogate.lipschitz(n.threshold.detach().double()).max().item() for n in neurons.values())
    curve = max(_curvature(n) for n in neurons.values())
    theta = max(n.threshold.detach().max().item() for n in neurons.values())
    radii = _radii(chain, largest)
    shares: list[float] = []  # dU_l/d||d_k|| of each layer k up to this one
    moved, bent = 0.0, 0.0  # U_{l-1}, V_{l-1}
    for index, (block, radius) in enumerate(zip(chain[:-1], radii[:-1], strict=True)):
        reach, places = _reach(block)
        shares = [gamma * norms[block.name] * slope * share for share in shares]
        shares.append(gamma * math.hypot(reach * radius, math.sqrt(places)))
        here = math.hypot(*shares)
        below = norms[block.name] * (slope * bent + curve * moved**2) + 2 * reach * slope * moved if index else 0.0
        bent = gamma * (theta * curve * here**2 + below)
        moved = here
    out = norms["readout"]
    jacobian = math.hypot(out * slope * moved, math.sqrt(radii[-1]**2 + 1))
    hessian = out * (slope * bent + curve * moved**2) + 2 * slope * moved
    return jacobian, hessian


def _curvature(neuron: Leaky) -> float:
    """sup|phi''|; for arctan 0.5101*alpha^2 (SAST eq. 17)."""
    found = neuron.surrogate.curvature(neuron.threshold.detach().double())
    return math.inf if found is None else found.max().item()


def _reach(block: Block) -> tuple[float, int]:
    """k_l and m_l of `smoothness`."""
    *before, layer = block.layers
    pooled = operator_norm(nn.Sequential(*before), block.given) if before else 1.0
    if isinstance(layer, nn.Conv2d):
        (rows, columns), (down, right) = layer.kernel_size, layer.stride
        return math.sqrt(-(-rows // down) * -(-columns // right)) * pooled, math.prod(block.made[1:])
    return pooled, 1
