"""What a source gives (samples and how to read their events) and what a network gets (frames of three splits)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError
from trainer.data.events import Sensor
from trainer.data.packing import Packed, unpack

__all__ = ["IGNORED", "UNKNOWN", "Data", "MissingSplit", "Sample", "Source", "Split", "fold_split", "in_bins",
           "in_steps", "stratified_split"]

UNKNOWN = -1
"""Label of a recording whose class nobody gave."""
IGNORED = 255
"""Label of a pixel, in a mask, that counts nowhere."""


@dataclass(frozen=True)
class Sample:
    """A stretch of a recording and its class.

    Args:
        id: name, unique in the source
        label: class, from 0
        recording: samples of one recording are never parted between training and validation
        file: where the events are; None where they are generated
        start: beginning of the stretch in us
    """

    id: str
    label: int
    recording: str
    file: Path | None = None
    start: int = 0


@dataclass
class Source:
    """Samples before they are frames.

    Args:
        read: a sample's events, structured array (see events.py)
        classes: number of classes
        sensor: what gives the events, or the side of a square one
        duration: length of a sample in us
        train: training samples
        test: test samples
        validation: validation samples; None to draw them out of `train`
        version: changes when the same samples would read differently
        binned: `read` gives a sample's counts, (T, C, H, W) whole numbers, and no events
        sized: `read` gives counts of the size that was asked for
        still: a sample's counts are alike at all time steps
        missing: "train" or "test", where the recordings hold no such part -> what was expected and where
        mask: a sample's pixels' classes (H, W) uint8, IGNORED where they count nowhere; then labels of samples mean
            nothing. Frames are `binned`
        unit: of the times in its files, for the question whether they are so (`trainer.data.reach.UNITS`)
    """

    read: Callable[[Sample], np.ndarray]
    classes: int
    sensor: Sensor | int
    duration: int
    train: list[Sample]
    test: list[Sample]
    validation: list[Sample] | None = None
    version: str = ""
    binned: bool = False
    sized: bool = False
    still: bool = False
    missing: dict[str, str] = field(default_factory=dict)
    mask: Callable[[Sample], np.ndarray] | None = None
    unit: str = "microseconds"


@dataclass
class Split:
    """Frames (N, T, C, H, W) uint8 ({0,1}, or counts up to count_max), labels (N,) int64 and the N samples' names.

    Labels of pixels are masks (N, H, W) uint8, which can be mapped from a file; IGNORED counts nowhere.

    What does not need all frames at once takes them by `at`: `frames` makes a tensor of all, each time.
    """

    stored: Tensor | Packed = field(repr=False)
    labels: Tensor
    ids: list[str] = field(repr=False)

    @property
    def frames(self) -> Tensor:
        """(N, T, C, H, W) uint8."""
        return self.at(slice(None))

    def at(self, index: Tensor | slice) -> Tensor:
        """Frames of some recordings, (n, T, C, H, W) uint8."""
        return self.stored[index] if isinstance(self.stored, Tensor) else unpack(self.stored, index)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labelled(self) -> bool:
        """Whether each recording's class is known."""
        return not self.masked and not bool((self.labels == UNKNOWN).any())

    @property
    def masked(self) -> bool:
        """Whether labels are those of pixels."""
        return self.labels.dim() == 3

    def spread(self, count: int) -> "Split":
        """`count` recordings, evenly spread over the split; all of them for 0, or where there are not so many."""
        if not count or count >= len(self):
            return self
        index = torch.linspace(0, len(self) - 1, count).round().long()
        return Split(self.at(index), self.labels[index], [self.ids[i] for i in index])


class MissingSplit(Split):
    """Stands for a split of which there are no recordings: whatever is asked of it, a HardspikeError says why."""

    def __init__(self, reason: str):
        self._reason = reason

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        raise HardspikeError(self._reason)

    def __repr__(self) -> str:
        return f"MissingSplit({self._reason!r})"


@dataclass
class Data:
    """Three disjoint splits. `shape` is (C, H, W), cameras have C = 2, OFF, ON; `scale`: what 1.0 stands for; `still`:
    frames are alike at all time steps; `masked`: labels are those of pixels; `bins`: parts of a step in channels of
    their own, as in `DataConfig`."""

    train: Split
    validation: Split
    test: Split
    classes: int
    shape: tuple[int, int, int]
    steps: int
    scale: float
    still: bool = False
    masked: bool = False
    bins: int = 1

    def repeated(self, frame: Tensor) -> Tensor:
        """A network's input (1, B, C, H, W) at every time step, without a copy, by which `Network` knows that its first
        layer gives the same each time."""
        return frame.expand(self.steps, *frame.shape[1:])

    def to_input(self, frames: Tensor) -> Tensor:
        """Frames (B, T, C, H, W) uint8 -> a network's input (T, B, C, H, W) float32, {0,1} or counts / scale."""
        return frames.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format) / self.scale


def in_bins(frames: Tensor, bins: int) -> Tensor:
    """Frames (N, T, C * bins, ...) as (N, T * bins, C, ...), every part of a step a step of its own."""
    return frames if bins == 1 else frames.unflatten(2, (bins, -1)).flatten(1, 2)


def in_steps(frames: Tensor, bins: int) -> Tensor:
    """`in_bins` undone."""
    return frames if bins == 1 else frames.unflatten(1, (-1, bins)).flatten(2, 3)


def stratified_split(samples: list[Sample], part: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Draw `part` of the recordings of every class, at least one, leaving at least one.

    Returns:
        (rest, drawn), both in the order of `samples`.

    Raises:
        HardspikeError: a class has a single recording.
    """
    recordings: dict[int, dict[str, None]] = {}
    for sample in samples:
        recordings.setdefault(sample.label, {})[sample.recording] = None
    drawn: set[tuple[int, str]] = set()
    for label, names in sorted(recordings.items()):
        if len(names) < 2:
            raise HardspikeError(f"class {label}: one training recording, {next(iter(names))}; validation takes one of "
                                 "at least 2; add recordings")
        count = min(max(round(part * len(names)), 1), len(names) - 1)
        chosen = np.random.default_rng([seed, label]).permutation(len(names))[:count]
        ordered = sorted(names)
        drawn.update((label, ordered[i]) for i in chosen)
    rest = [s for s in samples if (s.label, s.recording) not in drawn]
    return rest, [s for s in samples if (s.label, s.recording) in drawn]


def fold_split(samples: list[Sample], folds: int, fold: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Deal the recordings of every class into `folds` of equal size but for one recording.

    Args:
        fold: the one that is held out, from 1.

    Returns:
        (rest, held out), both in the order of `samples`. Over all folds each recording is held out once.

    Raises:
        HardspikeError: a class has fewer recordings than there are folds.
    """
    recordings: dict[int, set[str]] = {}
    for sample in samples:
        recordings.setdefault(sample.label, set()).add(sample.recording)
    held: set[tuple[int, str]] = set()
    dealt = 0  # one deal over all classes: the folds are equal as a whole too
    for label, names in sorted(recordings.items()):
        if len(names) < folds:
            way = "take fewer folds" if len(names) > 1 else "there is nothing to hold out of one; add recordings"
            raise HardspikeError(f"class {label}: {len(names)} recordings for {folds} folds; {way}")
        ordered = sorted(names)
        for i in np.random.default_rng([seed, label, folds]).permutation(len(names)):
            if dealt % folds == fold - 1:
                held.add((label, ordered[i]))
            dealt += 1
    rest = [s for s in samples if (s.label, s.recording) not in held]
    return rest, [s for s in samples if (s.label, s.recording) in held]
