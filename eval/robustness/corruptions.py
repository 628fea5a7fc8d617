"""Corruptions of the input, the same for every model: events lost, moved and added, and pixels that fail.

Each is a function of one recording: counts (T, C, H, W) int32 (C: OFF, ON), or (T, ...) where it has nothing to do
with pixels, a severity in [0, 1] and a source of draws give new counts; severity 0 changes nothing. What exceeds the
encoding's largest count is clipped afterwards, as binning does. To add one: write the function, name it in
`CORRUPTIONS`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike import HardspikeError, UsageError


def event_drop(frames: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Every voxel (pixel, polarity, time bin) loses its events with probability `severity` (SAST, appendix)."""
    return frames * (torch.rand(frames.shape, generator=generator) >= severity)


def time_jitter(frames: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Every event moves by a normal number of time steps, of standard deviation `severity` times T, rounded.

    Pixel and polarity stay. At the ends of the recording it is mirrored, so that no event is lost (SAST, appendix:
    boundary-safe) and an even rate stays even. In binary frames, events that meet become one.
    """
    steps, (when, *where) = len(frames), frames.nonzero(as_tuple=True)
    events = frames[when, *where]
    when, *where = (index.repeat_interleave(events) for index in (when, *where))
    shift = (torch.randn(len(when), generator=generator) * severity * steps).round().to(torch.int64)
    when = (when + shift) % (2 * steps)
    when = torch.where(when < steps, when, 2 * steps - 1 - when)
    return torch.zeros_like(frames).index_put_((when, *where), torch.ones((), dtype=frames.dtype), accumulate=True)


def bin_drop(frames: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Every time bin loses all its events with probability `severity` (SAST, appendix)."""
    return frames * (torch.rand(len(frames), *(1,) * (frames.ndim - 1), generator=generator) >= severity)


def background_noise(frames: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Events at random (Poisson), evenly over pixels, polarities and steps: `severity` for each event of the recording.

    Counted by the recording's own events, so that a severity means the same on sparse and on dense sensors.
    """
    rate = torch.full(frames.shape, severity * frames.sum().item() / frames.numel())
    return frames + torch.poisson(rate, generator).to(frames.dtype)


def dead_pixels(frames: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """A share `severity` of the pixels never fires."""
    return frames * ~_pixels(frames, severity, generator)


def stuck_pixels(frames: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """A share `severity` of the pixels has its polarity stuck: all its events are ON or all are OFF, as drawn."""
    stuck = _pixels(frames, severity, generator)
    on = torch.rand(stuck.shape, generator=generator) < 0.5
    events = frames.sum(1, dtype=frames.dtype)
    return torch.where(stuck, torch.stack((events * ~on, events * on), 1), frames)


def hot_pixels(frames: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """A share `severity` of the pixels fires one more ON event in every step.

    ON, since a sensor's leak drifts that way (Nozaki and Delbruck 2017).
    """
    hot = _pixels(frames, severity, generator)
    return frames + torch.stack((torch.zeros_like(hot), hot))


def _pixels(frames: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(H, W) bool, `share` of them True."""
    height, width = frames.shape[-2:]
    return choose(height * width, share, generator).view(height, width)


def choose(count: int, share: float, generator: torch.Generator) -> Tensor:
    """(count,) bool, of which round(share * count) are True."""
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.randperm(count, generator=generator)[:round(share * count)]] = True
    return chosen


@dataclass(frozen=True)
class Corruption:
    """`apply` (frames, severity, generator) -> frames; `unit` of severity; `pixels`: of pictures (2, H, W) alone."""

    apply: Callable[[Tensor, float, torch.Generator], Tensor]
    unit: str
    pixels: bool = False


CORRUPTIONS = {
    "event_drop": Corruption(event_drop, "probability of a voxel"),
    "time_jitter": Corruption(time_jitter, "std. dev., parts of T"),
    "bin_drop": Corruption(bin_drop, "probability of a time bin"),
    "background_noise": Corruption(background_noise, "noise events per event"),
    "dead_pixels": Corruption(dead_pixels, "share of pixels", pixels=True),
    "stuck_pixels": Corruption(stuck_pixels, "share of pixels", pixels=True),
    "hot_pixels": Corruption(hot_pixels, "share of pixels", pixels=True),
}


def corrupt(frames: Tensor, ids: list[str], name: str, severity: float, largest: int, seed: int = 0) -> Tensor:
    """The corrupted frames of recordings.

    Draws depend on `seed`, corruption, severity and a recording's name alone: neither on the model nor on the
    recordings beside it. Each recording meets a sensor of its own, so that an accuracy is a mean over sensors.

    Args:
        frames: (N, T, C, H, W) uint8, as a `Split` has them, or (N, T, ...) whole numbers.
        ids: names of the N recordings.
        name: one of `CORRUPTIONS`.
        severity: in [0, 1]; 0 gives the frames back, bit for bit.
        largest: count of a voxel that the encoding holds: 1 for binary frames.

    Raises:
        UsageError: severity is not in [0, 1].
    """
    check_severity(severity)
    result = torch.empty_like(frames)
    for index, sample in enumerate(ids):
        counts = CORRUPTIONS[name].apply(frames[index].int(), severity, draws(seed, name, severity, sample))
        result[index] = counts.clamp(max=largest)
    return result


def check_frames(frames: Tensor, name: str) -> None:
    """Refuse recordings that a corruption says nothing about.

    Args:
        frames: (N, T, ...).

    Raises:
        HardspikeError: they are no pictures of OFF and ON events, for a corruption of pixels, or hold no counts.
    """
    if CORRUPTIONS[name].pixels and (frames.ndim != 5 or frames.shape[2] != 2):
        raise HardspikeError(f"recordings of shape {tuple(frames.shape[2:])} are no pictures (2, H, W) of OFF and ON "
                             "events, whose pixels could fail")
    if name == "time_jitter" and frames.shape[1] == 1:
        raise HardspikeError("the recordings have one time step, in which no event moves")
    if frames.is_floating_point() and (frames != frames.round()).any():
        raise HardspikeError("the recordings hold no whole numbers of events, which could be lost or moved")


def draws(seed: int, name: str, severity: float, *where: int | str) -> torch.Generator:
    """The source of random numbers that belongs to one place (a recording, a layer) at one severity."""
    digest = hashlib.sha256(repr((seed, name, float(severity), *where)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def check_severity(severity: float) -> None:
    """Refuse what is no severity.

    Raises:
        UsageError: it is not a number in [0, 1].
    """
    if not 0 <= severity <= 1:
        raise UsageError(f"severity {severity:g}: must lie in [0, 1]")
