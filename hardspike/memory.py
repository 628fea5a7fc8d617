"""What this machine's memory holds: asked before something is begun that may need more."""

from contextlib import suppress
from pathlib import Path

from hardspike.errors import HardspikeError

__all__ = ["free_memory", "require_memory"]

SHARE = 0.8
"""Of the memory that is free, what one thing may ask for."""


def free_memory() -> int:
    """Bytes that this process can still get: the least of the machine's, its control group's and its own limit's."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for limit, used in (("memory.max", "memory.current"),
                        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            root = Path("/sys/fs/cgroup")
            found.append(int((root / limit).read_text()) - int((root / used).read_text()))
    with suppress(ImportError, OSError, ValueError):
        import resource  # absent on Windows

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            found.append(most - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    return max(0, min(found, default=1 << 62))


def require_memory(needed: float, what: str, advice: str) -> None:
    """Refuse, before it is begun, what needs more than `SHARE` of the free memory.

    Args:
        needed: bytes, as estimated.
        what: begins the message: the file or the place, and what it holds.
        advice: the way out.

    Raises:
        HardspikeError: it needs more.
    """
    free = free_memory()
    if needed > SHARE * free:
        raise HardspikeError(f"{what} needs about {needed / 1e9:.3g} GB of memory, where {SHARE * free / 1e9:.3g} GB "
                             f"({SHARE:.0%} of what is free) may be taken; {advice}")
