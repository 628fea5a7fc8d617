"""The scan of scan.py as two Triton kernels; `scan_triton` launches them, and imports this file late.

One program takes a block of neurons through all time steps, with the state in registers, so memory is read and written
once. Operations come in scan.py's order. Constants come in tensors: Triton would round a float argument to float32,
and a compile-time constant would mean a new compilation for every slope.

Only what the compiler and the interpreter both know is used: arctan is here because libdevice's is not in the latter.
A kernel takes its tensors and constants one by one, hence the long signatures.
"""

import math

import triton
import triton.language as tl

PI = tl.constexpr(math.pi)
TAN_PI_8, TAN_3PI_8 = tl.constexpr(math.sqrt(2) - 1), tl.constexpr(math.sqrt(2) + 1)


@triton.jit
def _divide(x, y):
    """x / y, rounded to nearest; `/` in float32 is an approximation on GPUs."""
    return x / y if y.dtype == tl.float64 else tl.div_rn(x, y)


@triton.jit
def _arctan(x):
    """To 3 units in the last place."""
    size = tl.abs(x)
    # atan(x) = pi/2 - atan(1/x) = pi/4 + atan((x - 1)/(x + 1)) bring the argument below tan(pi/8)
    large = size > TAN_3PI_8
    middle = size > TAN_PI_8
    above = tl.where(large, -1.0, tl.where(middle, size - 1, size))
    below = tl.where(large, size, tl.where(middle, size + 1, 1.0))
    quarters = tl.where(large, 2.0, tl.where(middle, 1.0, 0.0)).to(x.dtype)
    r = _divide(above, below)
    r2 = r * r
    # Taylor; the next term is 7e-9 of the value in float32, 4e-18 in float64
    terms: tl.constexpr = 20 if x.dtype == tl.float64 else 8
    total = tl.zeros_like(r)
    for i in tl.static_range(terms):
        total = (total + (1 - 2 * ((terms - i) % 2)) / (2 * (terms - i) + 1)) * r2
    angle = quarters * (PI / 4) + (total * r + r)
    return tl.where(x < 0, -angle, angle)


# -------------------------------------------------------------------------------- spike functions, as in spikes.py


@triton.jit
def _phi(z, shape, FUNCTION: tl.constexpr):
    x = z * tl.load(shape)
    if FUNCTION == "arctan":
        phi = _arctan(x) * (1 / PI) + 0.5
    elif FUNCTION == "fast_sigmoid":
        phi = _divide(x, tl.abs(x) + 1) * 0.5 + 0.5
    else:
        phi = _divide(tl.full(x.shape, 1, x.dtype), tl.exp(-x) + 1)
    return phi


@triton.jit
def _phi_slope(z, shape, FUNCTION: tl.constexpr):
    x = z * tl.load(shape)
    height = tl.full(x.shape, 0, x.dtype) + tl.load(shape + 1)
    if FUNCTION == "arctan":
        slope = _divide(height, x * x + 1)
    elif FUNCTION == "fast_sigmoid":
        x = tl.abs(x) + 1
        slope = _divide(height, x * x)
    else:
        phi = _phi(z, shape, FUNCTION)
        slope = phi * (1 - phi) * height
    return slope


@triton.jit
def _spike(z, rest, shape, HARD: tl.constexpr, FUNCTION: tl.constexpr, REST_AT_ZERO: tl.constexpr):
    if HARD:
        spike = (z > 0).to(z.dtype)
    else:
        spike = _phi(z, shape, FUNCTION)
        if REST_AT_ZERO:
            spike = _divide(spike - rest, 1 - rest)
    return spike


# ------------------------------------------------------------------------------------------ windows, as in windows.py


@triton.jit
def _window(z, constants, WINDOW: tl.constexpr):
    width = tl.load(constants)
    scale = tl.load(constants + 1)
    if WINDOW == "box":
        height = (tl.abs(z) < width).to(z.dtype) * scale
    elif WINDOW == "tri":
        inside = width - tl.abs(z)
        height = tl.where(inside < 0, 0.0, inside) * scale
    elif WINDOW == "asy" or WINDOW == "ramp":
        height = (z + tl.load(constants + 2)) * scale * (tl.abs(z) <= width).to(z.dtype)
    else:
        x = z * width
        height = _divide(tl.full(x.shape, 0, x.dtype) + scale, x * x + 1)
    return height


# -------------------------------------------------------------------------------------------------------- the scan


@triton.jit
def _parameter(values, i, inside, EACH: tl.constexpr):
    """One value a neuron, or one for all, as a block."""
    return tl.load(values + i, inside, 0.0) if EACH else tl.load(values + tl.zeros_like(i))


@triton.jit(do_not_specialize=["steps"])
def forward(current, spikes, membrane, beta, threshold, shape, neurons, steps,
            HARD: tl.constexpr, RESET: tl.constexpr, FUNCTION: tl.constexpr, REST_AT_ZERO: tl.constexpr,
            BETA_EACH: tl.constexpr, THRESHOLD_EACH: tl.constexpr, BLOCK: tl.constexpr):
    """`shape`: x = shape[0]*z is what phi is a function of, shape[1] scales its derivative. Tensors over time are
    (steps, neurons); beta and threshold have one value, or one a neuron (EACH)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < neurons
    leak = _parameter(beta, i, inside, BETA_EACH)
    theta = _parameter(threshold, i, inside, THRESHOLD_EACH)
    rest = _phi(-theta, shape, FUNCTION)
    u = tl.zeros_like(theta)
    s = tl.zeros_like(theta)
    for t in range(steps):
        at = tl.cast(t, tl.int64) * neurons + i
        drive = tl.load(current + at, inside, 0.0)
        if t == 0:
            u = drive
        elif RESET == "zero":
            u = (1 - s) * u * leak + drive
        elif RESET == "subtract":
            u = u * leak + drive - s * theta
        elif RESET == "subtract_leaky":
            u = (u - s * theta) * leak + drive
        else:
            u = u * leak + drive
        s = _spike(u - theta, rest, shape, HARD, FUNCTION, REST_AT_ZERO)
        tl.store(membrane + at, u, inside)
        tl.store(spikes + at, s, inside)


@triton.jit
def _store_sum(to, total, i, inside, EACH: tl.constexpr):
    """One sum a neuron, or one a program where all neurons share the value: lanes outside add 0, as they load 0."""
    if EACH:
        tl.store(to + i, total, inside)
    else:
        tl.store(to + tl.program_id(0), tl.sum(total, 0))


@triton.jit(do_not_specialize=["steps"])
def backward(membrane, grad, grad_membrane, grad_current, sum_beta, sum_threshold, beta, threshold, shape, windows,
             neurons, steps, HARD: tl.constexpr, RESET: tl.constexpr, THROUGH_RESET: tl.constexpr,
             FUNCTION: tl.constexpr, REST_AT_ZERO: tl.constexpr, WINDOW: tl.constexpr, BETA_EACH: tl.constexpr,
             THRESHOLD_EACH: tl.constexpr, BLOCK: tl.constexpr):
    """As `forward`; `grad_membrane`, `sum_beta` and `sum_threshold` may be None. `windows`: three constants a step, or
    None. Sums are in float64."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < neurons
    leak = _parameter(beta, i, inside, BETA_EACH)
    theta = _parameter(threshold, i, inside, THRESHOLD_EACH)
    rest = _phi(-theta, shape, FUNCTION)
    rest_slope = _divide(_phi_slope(-theta, shape, FUNCTION), 1 - rest)
    taken = leak * theta if RESET == "subtract_leaky" else theta  # off the next membrane, for a spike
    later = tl.zeros_like(theta)
    along_beta = tl.zeros([BLOCK], tl.float64)
    along_threshold = tl.zeros([BLOCK], tl.float64)
    for back in range(steps):
        t = steps - 1 - back
        at = tl.cast(t, tl.int64) * neurons + i
        u = tl.load(membrane + at, inside, 0.0)
        g = tl.load(grad + at, inside, 0.0)
        z = u - theta
        if WINDOW == "":
            d = _phi_slope(z, shape, FUNCTION)
            if REST_AT_ZERO:
                d = _divide(d, 1 - rest)
        else:
            d = _window(z, windows + 3 * t, WINDOW)
        s = _spike(z, rest, shape, HARD, FUNCTION, REST_AT_ZERO)
        a = g * d
        total = g  # dL/ds: the direct part and what flows back through the reset of the next step
        if grad_membrane is not None:
            a += tl.load(grad_membrane + at, inside, 0.0)
        if back > 0:
            if RESET == "zero":
                if THROUGH_RESET:
                    a += (1 - s - u * d) * leak * later
                    total -= leak * u * later
                else:
                    a += (1 - s) * leak * later
            elif THROUGH_RESET:
                a += (leak - taken * d) * later
                total -= taken * later
            else:
                a += leak * later
            if sum_beta is not None:
                kept = u
                if RESET == "zero":
                    kept = u * (1 - s)
                elif RESET == "subtract_leaky":
                    kept = u - theta * s
                along_beta += (later * kept).to(tl.float64)
            if sum_threshold is not None:
                if RESET == "subtract":
                    along_threshold -= (later * s).to(tl.float64)
                elif RESET == "subtract_leaky":
                    along_threshold -= (later * s * leak).to(tl.float64)
        if sum_threshold is not None:
            through = -d
            if REST_AT_ZERO and WINDOW == "":  # the offset of the shifted phi depends on the threshold
                through += (1 - _spike(z, rest, shape, False, FUNCTION, True)) * rest_slope
            along_threshold += (total * through).to(tl.float64)
        tl.store(grad_current + at, a, inside)
        later = a
    if sum_beta is not None:
        _store_sum(sum_beta, along_beta, i, inside, BETA_EACH)
    if sum_threshold is not None:
        _store_sum(sum_threshold, along_threshold, i, inside, THRESHOLD_EACH)
