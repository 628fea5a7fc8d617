"""Recordings whose pixels are labelled: what goes in, what is there, what the network sees there."""

from dataclasses import asdict, dataclass

from eval.cache import cached
from eval.mode import Mode
from eval.subject import Subject, modes, runs

SHOWN = 3
"""Recordings."""


@dataclass(frozen=True)
class Picture:
    """One recording.

    Args:
        id: its name.
        frame: (C, H, W), the mean over time of what goes in, in [0, 1].
        truth: (H, W), classes of pixels, `trainer.data.samples.IGNORED` where none counts.
        prediction: (H, W).
    """

    id: str
    frame: list[list[list[float]]]
    truth: list[list[int]]
    prediction: list[list[int]]


@dataclass(frozen=True)
class Segments:
    """Some recordings, and the mode in which the model ran."""

    mode: Mode
    pictures: list[Picture]


def segments(subject: Subject) -> Segments | None:
    """The first `SHOWN` recordings in the model's last mode; None where labels are those of recordings."""
    if not subject.part.masked:
        return None
    stored = cached({"command": "report segments", **subject.key, "shown": SHOWN}, lambda: asdict(_look(subject)))
    return Segments(Mode(**stored["mode"]), [Picture(**one) for one in stored["pictures"]])


def _look(subject: Subject) -> Segments:
    mode, frames = modes(subject.model)[-1], subject.frames[:, :SHOWN]
    logits, _ = runs(subject.model, mode)(frames)
    given, found, truth = frames.mean(0), logits.argmax(1), subject.masks[:SHOWN]
    return Segments(mode, [Picture(name, given[i].tolist(), truth[i].tolist(), found[i].tolist())
                           for i, name in enumerate(subject.part.ids[:SHOWN])])
