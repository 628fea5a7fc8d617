"""The readers that are known, with the versions that are run."""

from dataclasses import dataclass

from hardspike import UsageError, nearest


@dataclass(frozen=True)
class Reader:
    """A package that reads NIR.

    Args:
        name: as on the command line, and of its function in `worker`.
        packages: installed without what they ask for, which our own environment has (torch, nir, nirtorch, numpy);
            none where the reader is part of our own environment.
        shows: the package whose version is told.
        conventions: what it does that NIR leaves open, or otherwise than NIR says, as read in its source.
    """

    name: str
    packages: tuple[str, ...]
    shows: str
    conventions: str


READERS = {reader.name: reader for reader in (
    Reader("snntorch", (), "snntorch",
           "dt is 1e-4 s; LIF becomes Leaky, which resets to zero in the same step; takes no Threshold, Scale or LI"),
    Reader("spikingjelly", ("spikingjelly==2.0.0", "loguru==0.7.3"), "spikingjelly",
           "told dt; fires at `>=`, where NIR has `>`; one value a layer, v_leak as v_reset; no groups, no Delay"),
    Reader("norse", ("norse==1.1.0",), "norse",
           "told dt; takes r of LIF and IF for 1; a CubaLIF is two cells of its own; no Threshold, LI or Delay"),
    Reader("sinabs", ("sinabs==3.1.3", "pbr==7.1.3"), "sinabs",
           "no dt: tau counts steps; ignores r; subtracts the threshold; leaks by exp(-1/tau)"),
    Reader("rockpool", ("rockpool==3.1.0",), "rockpool",
           "dt is the least tau / (1 + r); a CubaLIF leaks by exp(-dt/tau) and subtracts the threshold; no LIF or IF, "
           "no convolution"),
    Reader("spyx", ("spyx==1.0.0", "jax==0.10.2", "jaxlib==0.10.2", "flax==0.12.8", "optax==0.2.8", "chex==0.1.92",
                    "orbax-checkpoint==0.12.8", "tensorstore==0.1.86", "treescope==0.1.10", "msgpack==1.2.4",
                    "etils==1.15.0", "grain==0.2.18", "array-record==0.8.6", "dm-tree==0.1.10", "cloudpickle==3.1.2",
                    "portpicker==1.6.0", "psutil==7.2.2", "jax-tqdm==0.4.0", "absl-py==2.5.1", "ml-dtypes==0.6.0",
                    "opt-einsum==3.4.0", "rich==15.0.0", "simplejson==4.3.0", "humanize==4.17.0", "toolz==1.2.0",
                    "nest-asyncio==1.6.0", "fsspec==2026.9.0", "importlib-resources==7.1.0", "zipp==4.1.2",
                    "more-itertools==11.2.1"), "spyx",
           "told dt; float32; ignores r; compares the membrane before the step's input comes; subtracts the threshold; "
           "one chain, channels last"),
    Reader("sc-neurocore", ("sc-neurocore==3.16.0", "defusedxml==0.7.1"), "sc-neurocore",
           "told dt; in float64; an edge that closes a loop is a step late, whatever lies in the loop"),
)}
"""By name."""


def reader(name: str) -> Reader:
    """The reader of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in READERS:
        raise UsageError(f"reader '{name}' is not known{nearest(name, READERS)}; known: {', '.join(READERS)}")
    return READERS[name]
