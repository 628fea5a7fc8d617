"""What a study is to train: variants of one configuration, read from a file."""

from dataclasses import dataclass, replace
from pathlib import Path

import trainer
from hardspike import HardspikeError, UsageError, about, laid_upon, nearest, read_yaml, shown
from trainer.config import KEEP, FitConfig, from_dict
from trainer.data.sources import check_source

STUDIES = Path(trainer.__file__).parent / "studies"
"""Those that are shipped."""
OWN = {"seed", "out", "threads", "keep"}
"""Options that the study sets itself."""
LONGEST_NAME = 200
"""Bytes of a variant's name, which is a folder's."""


@dataclass(frozen=True)
class Plan:
    """A study's file.

    Args:
        variants: name -> configuration, seed aside.
        keep: which epoch's weights are compared: hard, surrogate (the best on the validation part, as FitConfig.keep)
            or last.
    """

    variants: dict[str, FitConfig]
    keep: str = "hard"

    @property
    def first(self) -> FitConfig:
        """The variant that all others are compared with."""
        return next(iter(self.variants.values()))


def read(file: Path, path: Path | None = None, epochs: int | None = None, keep: str | None = None) -> Plan:
    """A study's file: `base`, the options that all runs share, `variants`, name -> options on top of them, and `keep`.

    Args:
        file: YAML.
        path: folder of the recordings, instead of what the study says.
        epochs: of the base; a variant's own, and those of them in integers, are scaled by as much, so that variants
            which are given more epochs to cost the same compute keep doing so.
        keep: instead of what the study says.

    Raises:
        UsageError: `epochs` below 1, an unknown `keep`.
        HardspikeError: the file cannot be read, or holds something else; variants on other recordings.
    """
    if epochs is not None and epochs < 1:
        raise UsageError(f"epochs {epochs}: must be 1 or more")
    content = _content(file)
    keep = keep or content.get("keep", "hard")
    if keep not in KEEP:
        raise UsageError(f"{file}: keep {shown(keep)} is unknown{nearest(str(keep), KEEP)}; known: {', '.join(KEEP)}")
    base = content.get("base") or {}
    scale = epochs / from_dict(base, f"{file}, base").epochs if epochs else 1
    variants = {}
    for name, own in content["variants"].items():
        config = from_dict(laid_upon(base, own or {}), f"{file}, {name}")
        quantised = config.quantise.epochs
        if quantised:
            quantised = max(1, round(quantised * scale))
        # the last epoch's weights are there whatever best.pt is chosen by: no second training for them
        variants[str(name)] = replace(config, data=replace(config.data, path=path or config.data.path),
                                      epochs=max(1, round(config.epochs * scale)),
                                      quantise=replace(config.quantise, epochs=quantised),
                                      keep="hard" if keep == "last" else keep)
        with about(f"{file}, {name}"):
            _check_source(variants[str(name)])
    plan = Plan(variants, keep)
    for name, variant in variants.items():
        for key in ("name", "path", "validation", "split_seed", "folds", "fold"):
            if (own := getattr(variant.data, key)) != (wanted := getattr(plan.first.data, key)):
                raise HardspikeError(f"{file}, {name}: data.{key} {own} instead of {wanted}: a study compares on "
                                     "the same recordings; make two studies")
    return plan


def _check_source(config: FitConfig) -> None:
    """What a file says is no fault of the call."""
    try:
        check_source(config.data)
    except UsageError as error:
        raise HardspikeError(str(error)) from error


def _content(file: Path) -> dict:
    content = read_yaml(file)
    known = ("base", "variants", "keep")
    if not isinstance(content, dict) or not isinstance(content.get("variants"), dict) or not content["variants"]:
        raise HardspikeError(f"{file}: a study has `base`, options of `trainer fit`, and `variants`, name -> options")
    for key in content:
        if key not in known:
            raise HardspikeError(f"{file}: key '{key}' is unknown{nearest(str(key), known)}; known: {', '.join(known)}")
    for part, values in (("base", content.get("base")), *content["variants"].items()):
        if not isinstance(values, dict | None):
            raise HardspikeError(f"{file}, {part}: {values!r} where options of `trainer fit` are expected")
        if own := OWN & set(values or {}):
            raise HardspikeError(f"{file}, {part}: {', '.join(sorted(own))}: set by the study itself; remove it")
    for name in map(str, content["variants"]):
        if name in (".", "..", "") or "/" in name or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
            raise HardspikeError(f"{file}: variant {shown(name)} is to be a folder's name; no '/' in it, and at most "
                                 f"{LONGEST_NAME} bytes")
    return content
