"""Operations of networks whose neurons count: an s of 3 is three events, in the network and in its graphs alike."""

import torch
from torch import nn

from eval.operations.measure import count_network, count_target
from export.freeze import freeze
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.lower import fold
from targets.reference import REFERENCE
from tests.export.test_levels import SHAPE, _few_layers, frames, network  # noqa: F401
from trainer.networks.espikeformer import conv_stages


def brute_force(made, x):
    """Layer -> SynOps: each event times the outputs that its place reaches, one place at a time."""
    given, found = {}, {}
    hooks = [layer.register_forward_hook(lambda _, a, __, name=name: given.update({name: a}))
             for name, layer in made.layers.items()]
    with torch.no_grad(), made.mode(hard=True):
        made(x)
    for hook in hooks:
        hook.remove()
    for name, layer in made.layers.items():
        if isinstance(layer, nn.Conv2d):
            ones = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
                             groups=layer.groups, bias=False)
            nn.init.ones_(ones.weight)
            s = given[name][0] * (1 if name == "conv1" else 3)
            found[name] = round(float(ones(s.round()).detach().sum(dtype=torch.float64)))
        elif name.startswith("attention"):
            q, k, v = ((3 * a).round().flatten(2).unflatten(1, (2, -1)) for a in given[name])
            found[name] = 0
            for one, two, three in zip(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), strict=True):
                found[name] += int(torch.einsum("cn,dn->cd", two, three).sum())
                found[name] += int(torch.einsum("cn,d->dn", one, torch.ones(len(three))).sum())
    return found


def test_whole_numbers_count_as_so_many_events_and_attention_as_additions():
    made, x = network(), frames()
    counts = {layer.layer: layer for layer in count_network(made, x).synapses}
    wanted = brute_force(made, x)
    assert {name: counts[name].synops for name in wanted} == wanted
    assert sum(each > 0 for each in wanted.values()) > len(wanted) / 2
    assert counts["attention2_1"].acs == wanted["attention2_1"] and counts["conv2_1q"].macs == 0
    assert counts["conv2_1q"].acs <= counts["conv2_1q"].synops and counts["readout"].events > 0


def test_network_graph_and_chips_layers_count_alike():
    stages, x = conv_stages(network(levels=4)), frames()
    graph = fold_batchnorm(freeze(stages, SHAPE))
    network_counts = count_network(stages, x)
    plain, _ = count_target(graph, REFERENCE, x)
    lowered, _ = count_target(fold(graph), REFERENCE, x)
    wanted = {layer.layer: (layer.events, layer.synops) for layer in network_counts.synapses}
    assert {layer.layer: (layer.events, layer.synops) for layer in plain.synapses} == wanted
    assert plain.total("spikes") == network_counts.total("spikes") == lowered.total("spikes") > 0
