"""How late layers answer on a chip whose connections take a step each, and what shorter ways wait for longer ones.

In a graph spikes cross all layers within their step. On the chip, and in Lava, a layer answers as many steps late as
its longest way has connections; where ways of different length meet, the shorter ones are delayed by the difference.
A connection that the graph itself wants late gives some of its delay to its own step.
"""

from hardspike import HardspikeError
from targets.loihi.layers import Connection, Network


def latencies(network: Network) -> dict[str, int]:
    """Steps by which the Input (0) and every layer answer late.

    Raises:
        HardspikeError: a loop has more connections than steps of delay, by name.
    """
    late = {network.plan.input: 0} | dict.fromkeys(network.layers, 0)
    for _ in range(len(late) + 1):
        before = dict(late)
        for name, layer in network.layers.items():
            for c in layer.connections:
                late[name] = max(late[name], late[c.source] + 1 - c.delay)
        if late == before:
            return late
    looping = next(name for name in network.layers if late[name] != before[name])
    raise HardspikeError(f"layer '{looping}': lies in a loop with fewer steps of delay than connections, and each "
                         "connection of Lava takes a step; put a nir.Delay into the loop, or run it on loihi2")


def waiting(late: dict[str, int], target: str, connection: Connection) -> int:
    """Steps that a connection waits beyond its own one: what the graph wants, and what longer ways take."""
    return connection.delay + late[target] - late[connection.source] - 1
