"""Random distortions of training frames: one draw a recording, the same at all of its time steps."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.data.config import AugmentConfig, RandAugmentConfig, check_augment
from trainer.data.randaugment import randaugment
from trainer.data.samples import IGNORED

__all__ = ["AugmentConfig", "augment", "augment_masks"]


def augment(frames: Tensor, generator: torch.Generator, config: AugmentConfig, part: slice = slice(None),
            joint: int | None = None) -> Tensor:
    """Distort every recording of a batch on its own.

    Pixels are taken by nearest neighbour, so that {0,1} stays {0,1}; outside of the frame nothing spikes.

    Args:
        frames: (B, T, C, H, W) floating point; for RandAugment of 0 to 255 and alike at all steps
        generator: source of all draws; the same state gives the same frames, on any device
        config: limits of the uniform draws
        part: `frames` are these recordings of a minibatch of `joint`, and are distorted as they would be within it

    Returns:
        (B, T, C, H, W); `frames` itself, bit for bit, where every limit is 0.

    Raises:
        UsageError: a limit is out of its range.
    """
    check_augment(config, frames.shape[1])
    # Six uniform numbers in [-1, 1) a recording, always: turning one distortion off leaves the others' draws alone.
    joint = len(frames) if joint is None else joint
    draws = (torch.rand(6, joint, generator=generator, device=generator.device) * 2 - 1)[:, part].to(frames)
    bend = None
    if config.elastic:
        bend = (torch.rand(joint, 2, 5, 5, generator=generator, device=generator.device) * 2 - 1)[part].to(frames)
    if config.randaugment.operations:
        pictures = randaugment(frames[:, 0], generator, config.randaugment, part, joint)
        frames = pictures[:, None].expand_as(frames)
    if config.shift or config.rotation or config.scale or config.shear or config.elastic:
        frames = _warp(frames, draws[:5], bend, config)
    if config.jitter:
        frames = _jitter(frames, draws[5], config.jitter)
    if config.drop:
        frames = _drop(frames, generator, config.drop, part, joint)
    return frames


def augment_masks(masks: Tensor, generator: torch.Generator, config: AugmentConfig, part: slice = slice(None),
                  joint: int | None = None) -> Tensor:
    """Masks moved as `augment` moves their frames from the same state of `generator`, which stays as it is.

    Args:
        masks: (B, H, W) uint8; what comes in from outside of the frame is IGNORED.

    Returns:
        (B, H, W) int64.
    """
    same = torch.Generator(generator.device)
    same.set_state(generator.get_state())
    moves = replace(config, drop=0.0, jitter=0, randaugment=RandAugmentConfig())
    # outside of the frame augment gives 0, which is to be IGNORED here
    turned = (IGNORED - masks.long())[:, None, None].float()
    return IGNORED - augment(turned, same, moves, part, joint)[:, 0, 0].round().long()


def _warp(frames: Tensor, draws: Tensor, bend: Tensor | None, config: AugmentConfig) -> Tensor:
    batch, steps, channels, height, width = frames.shape
    right, down, turn, size, slant = draws
    angle, zoom, slant = turn * math.radians(config.rotation), 1 + size * config.scale, slant * config.shear
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    # Output pixel -> input pixel, both from -1 to 1 over the frame: hence the two ratios of the sides.
    rows = (cos, (slant * cos - sin) * height / width, right * config.shift * 2 / width,
            sin * width / height, slant * sin + cos, down * config.shift * 2 / height)
    affine = torch.stack(rows, dim=1).view(batch, 2, 3)
    grid = F.affine_grid(affine, [batch, 1, height, width], align_corners=False)
    if bend is not None:
        field = F.interpolate(bend, (height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        grid = grid + field * torch.tensor([2 / width, 2 / height]).to(frames) * config.elastic
    flat = frames.reshape(batch, steps * channels, height, width)
    return F.grid_sample(flat, grid, mode="nearest", align_corners=False).view(frames.shape)


def _jitter(frames: Tensor, draw: Tensor, limit: int) -> Tensor:
    batch, steps = frames.shape[:2]
    later = (draw * (limit + 0.5)).round().clamp(-limit, limit).to(torch.int64)
    taken = torch.arange(steps, device=frames.device) - later[:, None]
    inside = (taken >= 0) & (taken < steps)
    row = taken.clamp(0, steps - 1) + steps * torch.arange(batch, device=frames.device)[:, None]
    moved = frames.flatten(0, 1).index_select(0, row.flatten()).view(frames.shape)
    return moved.mul_(inside.to(frames)[:, :, None, None, None])


def _drop(frames: Tensor, generator: torch.Generator, limit: float, part: slice, joint: int) -> Tensor:
    device = generator.device
    lost = torch.rand(joint, 1, 1, 1, 1, generator=generator, device=device) * limit
    kept = torch.rand((joint, *frames.shape[1:]), generator=generator, device=device)[part] >= lost[part]
    return frames * kept.to(frames)
