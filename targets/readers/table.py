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
