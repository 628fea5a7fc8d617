"""YAML and JSON as plain values: text, numbers, true and false, null, lists, and mappings whose keys are text.

Nothing in a file is imported, opened or called, and size, depth and number of values are bounded before they are made.
"""

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from hardspike.errors import HardspikeError, one_line, shown

__all__ = ["parse_json", "parse_yaml", "read_yaml"]

LARGEST_FILE = 256 * 1024
"""Bytes; the longest of our own files has 6,000."""
DEEPEST = 32
"""Levels of lists and mappings within each other."""
MOST_VALUES = 20_000
"""Values of a file, those that an alias repeats counted each time."""
LARGEST_INTEGER = 2**63 - 1

# YAML 1.2's core schema: no dates, no sexagesimal numbers, and 1e-3 is a number
_NULL = re.compile(r"|~|null|Null|NULL")
_BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")} | {"!", None}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        HardspikeError: no such file, not readable, no UTF-8, no YAML, not keys and values, a key twice, a number that
            is not finite or beyond 64 bits, a tag that asks for anything but plain values, or more than the limits of
            this module; names the file, and the line or key.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise HardspikeError(f"{path}: is no regular file; give a YAML file")
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise HardspikeError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); give a YAML "
                             "file") from error
    if len(content) > LARGEST_FILE:
        raise HardspikeError(f"{path}: larger than {LARGEST_FILE // 1024} kB; no configuration is that long")
    try:
        values = parse_yaml(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise HardspikeError(f"{path}: is no text in UTF-8 (byte {error.start}); give a YAML file") from error
    if not isinstance(values, dict):
        found = "is empty" if values is None else f"holds {_kind(values)}"
        raise HardspikeError(f"{path}: {found}; it is to hold keys and values, one 'key: value' a line")
    return values


def parse_yaml(text: str, origin: str) -> Any:
    """The value that a YAML text holds; `origin` names it in errors.

    Raises:
        HardspikeError: as `read_yaml`.
    """
    import yaml  # late: no command's --help reads a file

    try:
        return _Composer(yaml.parse(text, Loader=yaml.SafeLoader), origin).document()
    except yaml.YAMLError as error:
        raise HardspikeError(f"{origin}: cannot be read as YAML ({one_line(error)})") from error


def parse_json(text: str | bytes, origin: str) -> Any:
    """The value that a JSON text holds, under the same limits; for metadata in files of other kinds.

    Raises:
        HardspikeError: no JSON, or beyond the limits of this module; `origin` names it.
    """
    if len(text) > LARGEST_FILE:
        raise HardspikeError(f"{origin}: longer than {LARGEST_FILE // 1024} kB")
    try:
        values = json.loads(text, parse_constant=lambda name: math.nan, object_pairs_hook=_unique,
                            parse_int=lambda digits: _integer(digits, origin))
    except RecursionError as error:
        raise HardspikeError(f"{origin}: deeper than {DEEPEST} levels") from error
    except ValueError as error:  # no UTF-8 is one, too
        raise HardspikeError(f"{origin}: cannot be read as JSON ({one_line(error)})") from error
    _check(values, origin)
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is given twice")
    return values


def _check(value: Any, origin: str, depth: int = 0) -> None:
    """Finite, of 64 bits, and not too deep. How many values there are is bounded by the length of the text."""
    if depth > DEEPEST:
        raise HardspikeError(f"{origin}: deeper than {DEEPEST} levels")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, origin, depth + 1)
    elif isinstance(value, int | float):
        _checked_number(value, origin)


def _checked_number(value: int | float, where: str) -> int | float:
    if not -LARGEST_INTEGER <= value <= LARGEST_INTEGER and isinstance(value, int):
        raise HardspikeError(f"{where}: {shown(value)}: must be at most {LARGEST_INTEGER:.6g} (64 bits)")
    if not math.isfinite(value):
        raise HardspikeError(f"{where}: {shown(value)}: must be a finite number")
    return value


def _integer(digits: str, where: str) -> int:
    if len(digits) > 40:  # more than Python reads, at some length
        raise HardspikeError(f"{where}: {shown(digits)}: must be at most {LARGEST_INTEGER:.6g} (64 bits)")
    return int(_checked_number(int(digits, 0 if digits[:2] in ("0x", "0o") else 10), where))


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"the single value {shown(value)}"


class _Composer:
    """Plain values out of the events of a YAML text, which come one by one, so that each limit stops what follows."""

    def __init__(self, events, origin: str):
        self.events, self.origin = events, origin
        self.anchors: dict[str, tuple[Any, int]] = {}  # the value and how many values it holds
        self.values = 0

    def document(self) -> Any:
        import yaml

        value, ended = None, False
        for event in self.events:
            if isinstance(event, yaml.DocumentEndEvent):
                ended = True
            elif ended and isinstance(event, yaml.DocumentStartEvent):
                raise self.refusal(event, "a second document ('---'); keep one")
            elif isinstance(event, yaml.NodeEvent):
                value = self.value(event, 0)
        return value

    def value(self, event, depth: int) -> Any:
        """The value that begins with `event`; `depth` levels surround it."""
        import yaml

        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:  # not there, or the very value that it would be part of
                raise self.refusal(event, f"alias '*{event.anchor}' of no value before it")
            value, size = self.anchors[event.anchor]
            self.count(event, size)
            return value
        if event.tag not in _TAGS:
            raise self.refusal(event, f"tag {shown(event.tag)}: values are plain text, numbers, lists and mappings; "
                                      "remove it")
        if depth >= DEEPEST:
            raise self.refusal(event, f"deeper than {DEEPEST} levels")
        before = self.values
        self.count(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
                value.append(self.value(inner, depth + 1))
        else:
            value = self.mapping(depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = value, self.values - before
        return value

    def mapping(self, depth: int) -> dict[str, Any]:
        import yaml

        value: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise self.refusal(key, "a key that is no text")
            name = key.value  # as it is written: `on`, `1e-3` and `null` are names, too
            if name in value:
                raise self.refusal(key, f"key '{name}' is given twice; remove one")
            inner = self.value(next(self.events), depth + 1)
            if name != "<<":
                value[name] = inner
                continue
            for one in inner if isinstance(inner, list) else [inner]:  # YAML's merge: earlier ones win
                if not isinstance(one, dict):
                    raise self.refusal(key, "'<<' merges keys and values only")
                merged = one | merged
        return merged | value

    def scalar(self, event) -> Any:
        text = event.value
        if (not event.implicit[0] and event.tag is None) or event.tag in ("!", "tag:yaml.org,2002:str"):  # in quotes
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOLEAN.fullmatch(text):
            return text[0] in "tT"
        where = f"{self.origin}, line {event.start_mark.line + 1}"
        if _INTEGER.fullmatch(text):
            return _integer(text, where)
        if _FLOAT.fullmatch(text):
            number = float(text.replace(".i", "i").replace(".I", "I").replace(".n", "n").replace(".N", "N"))
            if not math.isfinite(number):
                raise self.refusal(event, f"{text[:40]}: must be a finite number")
            return number
        return text

    def count(self, event, more: int) -> None:
        self.values += more
        if self.values > MOST_VALUES:
            raise self.refusal(event, f"more than {MOST_VALUES:,} values, repeated ones counted each time")

    def refusal(self, event, what: str) -> HardspikeError:
        return HardspikeError(f"{self.origin}, line {event.start_mark.line + 1}: {what}")
