"""Right answers and spikes over severity: what is run once for every corruption, severity, model and mode, and kept."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from eval.cache import cached, fingerprint
from eval.mode import Mode
from eval.robustness.corruptions import CORRUPTIONS, check_frames, corrupt
from eval.robustness.faults import FAULTS, Spikes, inject
from eval.subject import Subject, answers, batch
from hardspike import HardspikeError, progress
from trainer.data.samples import in_bins, in_steps


@dataclass(frozen=True)
class Curve:
    """A model in one mode under one corruption or fault.

    Args:
        corruption: or fault, by name.
        subject: the model on its recordings.
        mode: how it ran.
    """

    corruption: str
    subject: Subject
    mode: Mode


@dataclass(frozen=True)
class LeftOut:
    """What could not be run, and why."""

    curve: Curve
    reason: str


def possible(names: list[str], curves: list[tuple[Subject, Mode]]) -> tuple[list[Curve], list[LeftOut]]:
    """What can be run, and each corruption or fault that recordings, a model or a target cannot have."""
    found, left_out = [], []
    for name in names:
        for subject, mode in curves:
            curve = Curve(name, subject, mode)
            try:
                if name in FAULTS:
                    inject(subject.model, mode, name, 0.0)
                else:
                    check_frames(in_bins(subject.part.frames, subject.data.bins), name)
                found.append(curve)
            except HardspikeError as error:
                left_out.append(LeftOut(curve, str(error)))
    return found, left_out


class Inputs:
    """The corrupted recordings of a set of subjects, made where a result is not known yet, one at a time.

    Args:
        subject: any of them: all have the same recordings.
        seed: of the draws.
    """

    def __init__(self, subject: Subject, seed: int):
        self.part, self.data, self.seed = subject.part, subject.data, seed
        self.clean = fingerprint(self.part.frames)
        self.recordings = fingerprint(self.part.ids, self.part.labels, self.data.scale, self.data.bins)
        self.frames = functools.lru_cache(maxsize=1)(self._frames)  # a split may be large

    def _frames(self, name: str, severity: float) -> Tensor:
        """(N, T, ...) under a corruption; as they are under a fault."""
        if name in FAULTS:
            return self.part.frames
        # what a file of spikes holds may exceed what its encoding would
        largest = max(int(self.data.scale), int(self.part.frames.max()))
        frames = in_bins(self.part.frames, self.data.bins)
        return in_steps(corrupt(frames, self.part.ids, name, severity, largest, self.seed), self.data.bins)

    def hash(self, name: str, severity: float) -> str:
        """SHA-256 of `frames(name, severity)`."""
        if name in FAULTS:
            return self.clean
        key = {"command": "corrupt", "frames": self.clean, "recordings": self.recordings,
               "draws": [self.seed, name, severity]}
        return cached(key, lambda: fingerprint(self.frames(name, severity)))


@dataclass(frozen=True)
class Counted:
    """A model in one mode under one corruption or fault of one severity, all recordings together.

    Args:
        right: answers.
        fired, arrived: spikes (`faults.Spikes`); None where nothing is done to spikes.
    """

    right: int
    fired: float | None = None
    arrived: float | None = None


def count_all(curves: list[Curve], names: list[str], grid: list[float],
              seed: int) -> tuple[list[list[Counted]], dict[str, list[str]]]:
    """What each of `curves` gave at each severity, and the hashes of the inputs, corruption by corruption."""
    inputs = Inputs(curves[0].subject, seed)
    found: list[list[Counted]] = [[] for _ in curves]
    able = {curve.corruption for curve in curves} | set(FAULTS)
    hashes: dict[str, list[str]] = {name: [] for name in names if name in able}
    with progress([], "robustness", total=len(curves) * len(grid)) as bar:
        for name in hashes:
            for severity in grid:
                hashes[name].append(inputs.hash(name, severity))
                for index, curve in enumerate(curves):
                    if curve.corruption == name:
                        found[index].append(_kept(curve, inputs, severity, hashes[name][-1]))
                        bar.update()
    return found, hashes


def _kept(curve: Curve, inputs: Inputs, severity: float, input_hash: str) -> Counted:
    fault = [inputs.seed, curve.corruption, severity] if curve.corruption in FAULTS else None
    key = {"command": "robustness", "model": curve.subject.model_key, "mode": curve.mode, "fault": fault,
           "inputs": input_hash, "recordings": inputs.recordings}
    return Counted(*cached(key, lambda: count(curve, fault, lambda: inputs.frames(curve.corruption, severity))))


def count(curve: Curve, fault: list | None, inputs: Callable[[], Tensor]) -> list:
    """The fields of a `Counted` on `inputs()` (N, T, ...), with a fault [seed, name, severity] or none."""
    subject, mode, frames = curve.subject, curve.mode, inputs()
    spikes = Spikes()
    faulty = inject(subject.model, mode, fault[1], fault[2], fault[0], spikes) if fault else None
    answer, part, right = answers(subject.model, mode), subject.part, 0
    size = batch(mode, len(part))
    for start in range(0, len(part), size):
        some = slice(start, start + size)
        x = subject.given(frames[some], mode)
        logits = faulty(x, part.ids[some]) if faulty else answer(x)
        right += int((logits.argmax(1) == subject.labels[some]).sum())
    counts = fault is not None and not FAULTS[fault[1]].weights
    return [right, *((spikes.fired, spikes.arrived) if counts else (None, None))]


def unit(name: str) -> str:
    """What a severity of a corruption or fault counts."""
    return (FAULTS[name] if name in FAULTS else CORRUPTIONS[name]).unit
