"""Lava's fixed-point layers written down plainly in numpy, and as files: what the real one is held to.

A layer is a dict: weight, bias, reset, iDecay, vDecay, vThMant and, for a convolution, stride, padding, dilation,
groups.
"""

import h5py
import nir
import numpy as np

LIMIT = 1 << 23


def decay(x, d):
    return np.sign(x) * ((np.abs(x) * (4096 - d)) >> 12)


def synapse(layer, x):
    weight = layer["weight"].astype(np.int64)
    if weight.ndim == 2:
        return weight @ x.reshape(-1)
    (sy, sx), (py, px), (dy, dx) = layer["stride"], layer["padding"], layer["dilation"]
    x = np.pad(x, ((0, 0), (py, py), (px, px)))
    out, inside, ky, kx = weight.shape
    height = (x.shape[1] - dy * (ky - 1) - 1) // sy + 1
    width = (x.shape[2] - dx * (kx - 1) - 1) // sx + 1
    result = np.zeros((out, height, width), np.int64)
    for o in range(out):
        first = o // (out // layer["groups"]) * inside
        for y in range(height):
            for z in range(width):
                patch = x[first:first + inside, y * sy:y * sy + dy * ky:dy, z * sx:z * sx + dx * kx:dx]
                result[o, y, z] = (patch[:, :ky, :kx] * weight[o]).sum()
    return result


def run(layers, spikes):
    """Spikes of every layer (T, S, ...) for `spikes` (T, S, *input), and the reached extremes of u and v."""
    steps, samples = spikes.shape[:2]
    found, extremes = [[] for _ in layers], {"wrapped": 0, "saturated": 0}
    for sample in range(samples):
        values = spikes[:, sample].astype(np.int64)
        for layer, record in zip(layers, found, strict=True):
            u = v = fired = 0
            out = []
            for t in range(steps):
                u = decay(u, layer["iDecay"]) + (synapse(layer, values[t]) << 6)
                inside = np.where(u > LIMIT, u - 2 * LIMIT, u)
                inside = np.where(u <= -LIMIT, u + 2 * LIMIT, inside)
                extremes["wrapped"] += int((inside != u).sum())
                u = inside
                bias = layer["bias"].reshape(-1, *(1,) * (u.ndim - 1)) << 6
                subtracted = fired * (layer["vThMant"] << 6) if layer["reset"] == "subtract" else 0
                v = decay(v, layer["vDecay"]) + u + bias - subtracted
                extremes["saturated"] += int((np.abs(v) >= LIMIT).sum())
                v = np.clip(v, 1 - LIMIT, LIMIT - 1)
                fired = (v > layer["vThMant"] << 6).astype(np.int64)
                if layer["reset"] == "zero":
                    v = np.where(fired, 0, v)
                out.append(fired)
            values = np.stack(out)
            record.append(values)
    return [np.stack(record, 1).astype(np.uint8) for record in found], extremes


def write(path, layers, shape):
    """The layers as a `.net` file, by the table of datasets in lava-dl's netx, without hardspike's own writer."""
    with h5py.File(path, "w") as file:
        file["layer/0/type"], file["layer/0/shape"] = b"input", np.array(shape)
        number, flat = 1, len(shape) == 1
        for layer in layers:
            conv = layer["weight"].ndim == 4
            if not conv and not flat:
                file[f"layer/{number}/type"] = b"flatten"
                number, flat = number + 1, True
            group = file.create_group(f"layer/{number}")
            out = synapse(layer, np.zeros(shape, np.int64)).shape
            group["type"], group["shape"] = b"conv" if conv else b"dense", np.array(out)
            for key in ("weight", "bias", *(("stride", "padding", "dilation", "groups") if conv else ())):
                group[key] = layer[key]
            group["neuron/type"] = b"CUBA" if layer["reset"] == "zero" else b"CUBA_SUBTRACT"
            for key in ("iDecay", "vDecay", "vThMant"):
                group[f"neuron/{key}"] = layer[key]
            number, shape = number + 1, out


def random_layers(rng, shape):
    """Two or three layers that fire, with odd parameters, for an input of `shape`; convolutions first."""
    layers = []
    for _ in range(int(rng.integers(2, 4))):
        layer = {"reset": ("zero", "subtract")[int(rng.integers(2))], "iDecay": 4096,
                 "vDecay": int(rng.choice([0, 128, 1000, 4096]))}
        if layer["reset"] == "zero" and layer["vDecay"]:  # what NIR has a node for
            layer["iDecay"] = int(rng.choice([4096, 3000, 700]))
        if len(shape) == 3 and min(shape[1:]) >= 5:
            groups = int(rng.choice([1, 2])) if shape[0] % 2 == 0 else 1
            form = (4, shape[0] // groups, *rng.integers(1, 4, 2))
            layer |= {"groups": groups, "stride": rng.integers(1, 4, 2), "padding": rng.integers(0, 3, 2),
                      "dilation": rng.integers(1, 3, 2)}
        else:
            form = (int(rng.integers(3, 9)), int(np.prod(shape)))
        few = np.prod(form[1:]) < 16  # with few inputs a layer of mixed signs may be silent
        layer["weight"] = rng.integers(-60 if few else -128, 128, form)
        layer["bias"] = rng.integers(-40, 60, len(layer["weight"]))
        layer["vThMant"] = int(rng.integers(1, 30 * min(10, layer["weight"][0].size)))
        layers.append(layer)
        shape = synapse(layer, np.zeros(shape, np.int64)).shape
    return layers


def extreme_layers(rng, inputs):
    """Two dense layers, slow and one-sided, so that u wraps and v saturates within 200 steps."""
    sign = rng.choice([-1, 1], (6, 1))
    slow = {"reset": "zero", "iDecay": 2, "vDecay": 3, "vThMant": 131_071}
    return [{**slow, "weight": sign * rng.integers(100, 128, (6, inputs)), "bias": rng.integers(-4095, 4096, 6)},
            {**slow, "weight": rng.integers(-128, 128, (5, 6)), "bias": rng.integers(-4095, 4096, 5)}]


def to_nir(layers, shape, dt=1e-4):
    """The layers as an integer NIR graph."""
    nodes, edges, last = {"input": nir.Input({"input": np.array(shape)})}, [], "input"
    for i, layer in enumerate(layers):
        out = synapse(layer, np.zeros(shape, np.int64)).shape
        weight, bias = layer["weight"].astype(float), layer["bias"].astype(float)
        if weight.ndim == 4:
            nodes[f"conv{i}"] = nir.Conv2d(shape[1:], weight, layer["stride"], layer["padding"], layer["dilation"],
                                           layer["groups"], bias)
            linear = f"conv{i}"
        else:
            if len(shape) == 3:
                nodes[f"flatten{i}"] = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
                edges.append((last, f"flatten{i}"))
                last = f"flatten{i}"
            nodes[f"fc{i}"] = nir.Affine(weight, bias)
            linear = f"fc{i}"
        edges.append((last, linear))
        theta, zero = np.full(out, float(layer["vThMant"])), np.zeros(out)
        tau = np.full(out, dt * 4096 / layer["vDecay"]) if layer["vDecay"] else None
        gain = np.full(out, 1 / dt) if tau is None else tau / dt
        last = f"lif{i}"
        if layer["reset"] == "subtract":
            nodes |= {f"li{i}": nir.I(gain) if tau is None else nir.LI(tau, gain, zero),
                      last: nir.Threshold(theta), f"reset{i}": nir.Scale(-theta)}
            edges += [(linear, f"li{i}"), (f"li{i}", last), (last, f"reset{i}"), (f"reset{i}", f"li{i}")]
        else:
            syn = np.full(out, dt * 4096 / layer["iDecay"])
            nodes[last] = (nir.IF(gain, theta, zero) if tau is None
                           else nir.LIF(tau, gain, zero, theta, zero) if layer["iDecay"] == 4096
                           else nir.CubaLIF(syn, tau, gain, zero, theta, zero, syn / dt))
            edges.append((linear, last))
        shape = out
    nodes["output"] = nir.Output({"output": np.array(shape)})
    return nir.NIRGraph(nodes, [*edges, (last, "output")], metadata={"dt": dt}, type_check=False)
