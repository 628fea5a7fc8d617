"""Graph after graph through the relations, and what is found made small."""

import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import nir
import numpy as np

from eval.explain.reduce import reduce
from export.passes.rewrite import flatten
from hardspike import HardspikeError
from tests.conform import grow
from tests.conform.bench import Bench, Spikes, spikes_of
from tests.conform.grow import Case
from tests.conform.relations import RELATIONS
from tests.conform.rewritten import ElsewhereError

SHRINKING = 120
"""Seconds for one find."""
LIMIT = 300
"""Seconds of one relation on one graph: what goes on for ever is a find as well."""
PROGRESS = 1000
"""Graphs between two lines that say how far it is."""


@dataclass
class Find:
    """`said` is what differed; a program that raised something else than a HardspikeError is a find as well."""

    seed: int
    number: int
    relation: str
    said: str
    case: Case


@dataclass
class Total:
    """How much was tried."""

    graphs: int = 0
    seconds: float = 0.0
    silent: int = 0
    tried: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    finds: list[Find] = field(default_factory=list)

    def words(self) -> str:
        rate = self.graphs / max(self.seconds, 1e-9)
        tried = ", ".join(f"{name} {self.tried[name]}" for name in RELATIONS if self.tried[name])
        return (f"{self.graphs} graphs ({self.silent} silent), {sum(self.tried.values())} comparisons in "
                f"{self.seconds:.0f} s, {rate:.1f} graphs/s; equal or refused: {tried}; {len(self.finds)} finds")


def differs(name: str, case: Case) -> str:
    """What a relation says of a case; an error that is none of ours counts.

    Raises:
        HardspikeError: a program refuses the graph.
    """
    try:
        return _within(name, Bench(case))
    except HardspikeError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {place.filename.rpartition('/')[2]}:{place.lineno}: {error}"


def look(total: Total, seed: int, number: int, names: list[str] | None = None,
         kind: str | None = None) -> Iterator[Find]:
    """One graph through the relations whose turn it is, or those of `names`."""
    case = grow.case(seed, number, kind)
    bench = Bench(case)
    total.graphs += 1
    for name in names or RELATIONS:
        if names is None and not RELATIONS[name].turn(name, number, case.kind):
            continue
        try:
            said = _said(name, bench)
            total.tried[name] += 1
        except ElsewhereError:
            continue
        except HardspikeError as error:
            total.refused[name, _kind(str(error))] += 1
            continue
        if said:
            found = Find(seed, number, name, said, case)
            total.finds.append(found)
            yield found
    exact = vars(bench).get("exact")
    total.silent += exact is not None and not any(spikes.any() for spikes in exact.spikes.values())


def _said(name: str, bench: Bench) -> str:
    try:
        return _within(name, bench)
    except HardspikeError:
        raise
    except Exception:
        return differs(name, bench.case)


def _within(name: str, bench: Bench) -> str:
    """What the relation says, within `LIMIT`; a TimeoutError after it."""
    before = signal.signal(signal.SIGALRM, _over)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        return RELATIONS[name].differs(bench)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _over(*_) -> None:
    raise TimeoutError(f"no end after {LIMIT} s")


def campaign(seed: int, numbers: Iterable[int], seconds: float, names: list[str] | None = None,
             total: Total | None = None, kind: str | None = None) -> Iterator[Find]:
    """Finds among the graphs of these numbers, until `seconds` (0: for ever) are over; of a kind or of all."""
    total, began = total or Total(), time.monotonic()
    for number in numbers:
        if seconds and time.monotonic() - began >= seconds:
            return
        yield from look(total, seed, number, names, kind)
        total.seconds = time.monotonic() - began
        if not total.graphs % PROGRESS:
            print(f"seed {seed}, up to {number}: {total.words()}", flush=True)


def added(parts: Iterable[Total]) -> Total:
    """What several processes tried side by side."""
    whole = Total()
    for part in parts:
        whole.graphs, whole.silent = whole.graphs + part.graphs, whole.silent + part.silent
        whole.seconds = max(whole.seconds, part.seconds)
        whole.tried, whole.refused = whole.tried + part.tried, whole.refused + part.refused
        whole.finds += part.finds
    return whole


def shrunk(find: Find, seconds: float = SHRINKING) -> Find:
    """The same find on the smallest graph and input."""
    kind = find.case.kind

    def case_of(graphs: tuple[nir.NIRGraph, ...], frames: np.ndarray) -> Case:
        return Case(kind, graphs[0], frames)

    def happens(graphs: tuple[nir.NIRGraph, ...], frames: np.ndarray) -> bool:
        said = differs(find.relation, case_of(graphs, frames))
        return bool(said) and trouble(said) == trouble(find.said)

    def record(graph: nir.NIRGraph, frames: np.ndarray) -> Spikes:
        try:
            return spikes_of(Bench(Case(kind, graph, frames)).exact)
        except Exception:  # the find may be that it does not run
            return {}

    try:
        graph = flatten(find.case.graph)
        start = graph if happens((graph,), find.case.frames) else find.case.graph
        graphs, frames = reduce((start,), find.case.frames, happens, record, seconds)
        case = case_of(graphs, frames)
        return replace(find, case=case, said=differs(find.relation, case))
    except Exception:  # what shrinks is our own code as well, and may be what is broken
        return find


def trouble(said: str) -> str:
    """What kind of find it is: a difference, or an exception of a class at a place."""
    return said.split(": ")[0] if "Error at " in said else "differs"


def _kind(said: str) -> str:
    """A refusal without the names and numbers in it."""
    return "".join("#" if c.isdigit() else c for c in said.split(": ", 1)[-1])[:70]
