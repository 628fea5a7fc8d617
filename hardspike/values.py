"""Dataclasses from plain values, checked against their annotations."""

import dataclasses
import math
import re
import types
import typing
from pathlib import Path
from typing import Any

from hardspike.errors import HardspikeError, nearest, shown
from hardspike.plain import LARGEST_INTEGER

__all__ = ["bare", "built", "checked", "converted", "dataclass_in", "from_values", "keys", "laid_upon", "only_list",
           "to_values"]

T = typing.TypeVar("T")

LONGEST_LIST = 10_000
_INTEGER = re.compile(r"\s*[-+]?\d+(_\d+)*\s*|\s*0x[0-9a-fA-F]+\s*", re.ASCII)
_FLOAT = re.compile(r"\s*[-+]?(\d+(_\d+)*(\.\d*)?|\.\d+)(e[-+]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_NOT_FINITE = re.compile(r"\s*[-+]?\.?(nan|inf|infinity)\s*", re.IGNORECASE)
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path",
          type(None): "null", dict: "keys and values", list: "a list", tuple: "a list"}


def from_values(cls: type[T], values: Any, origin: str, base: T | None = None) -> T:
    """A dataclass from a mapping of plain values, as YAML, JSON or `to_values` give it.

    Each value is checked against its field's annotation: int, float, str, bool, Path, None, Any, Literal, unions,
    lists, tuples, dicts and dataclasses of these. A whole number is a float, too; text that spells a number or a truth
    value is one where that is asked for; nothing else is converted. Nothing is imported or opened.

    Args:
        values: the mapping; a missing key takes the value of `base`, or the field's default.
        origin: file, or what else the values come from; every error begins with it.

    Raises:
        HardspikeError: `values` is no mapping; an unknown key (names the nearest), a missing one; a value of the wrong
            type, null where none is allowed, not finite or beyond 64 bits; what the dataclass itself refuses.
    """
    found = checked(cls, values, f"{origin}: ")
    try:
        return built(cls, found, base)
    except HardspikeError as error:
        raise HardspikeError(f"{origin}: {error}") from error


def to_values(config: Any) -> Any:
    """The mapping that `from_values` takes: nested dataclasses as mappings, paths as text, tuples as lists."""
    if dataclasses.is_dataclass(config):
        return {_key(field): to_values(getattr(config, field.name)) for field in dataclasses.fields(config)
                if field.init}
    if isinstance(config, dict):
        return {key: to_values(inner) for key, inner in config.items()}
    if isinstance(config, list | tuple):
        return [to_values(inner) for inner in config]
    return str(config) if isinstance(config, Path) else config


def keys(cls: type, prefix: str = "") -> list[str]:
    """Every key that `cls` knows, those of nested dataclasses with dots: `network`, `network.beta`."""
    found = []
    for name, hint in _hints(cls).items():
        found.append(prefix + name)
        if inner := dataclass_in(hint):
            found += keys(inner, f"{prefix}{name}.")
    return found


def checked(cls: type, values: Any, where: str, path: str = "", known: list[str] | None = None) -> dict[str, Any]:
    """`values` converted, nested dataclasses still as mappings, so that one may be laid upon another before `built`.

    Args:
        where: begins every error, as `file: `.
        path: key of this mapping within the whole, with its dot.
        known: all keys of the whole, among which the nearest is looked for.
    """
    if isinstance(values, cls):
        return {_key(field): getattr(values, field.name) for field in dataclasses.fields(cls) if field.init}
    known = keys(cls) if known is None else known
    if not isinstance(values, dict):
        raise HardspikeError(f"{where}{path.rstrip('.')}{' ' * bool(path)}{shown(values)}: must hold keys and values: "
                             f"{', '.join(_hints(cls))}")
    hints, found = _hints(cls), {}
    for name, value in values.items():
        if name not in hints:
            name = f"{path}{name if isinstance(name, str) else shown(name)}"
            way = "; keys within a key are written 'a: {b: value}', not 'a.b: value'" if name in known else \
                nearest(name, known)
            raise HardspikeError(f"{where}key {shown(name)} is unknown{way}")
        inner = dataclass_in(hints[name])
        if inner and not (value is None and _allows_none(hints[name])):
            found[name] = checked(inner, value, where, f"{path}{name}.", known)
        else:
            found[name] = converted(hints[name], value, f"{where}{path}{name}")
    return found


def built(cls: type[T], found: dict[str, Any], base: T | None = None) -> T:
    """The dataclass of `checked` values; what is missing is as in `base`, or the field's default.

    Raises:
        HardspikeError: a value without default is missing, or what the dataclass itself refuses.
    """
    arguments, hints = {}, _hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass: there is no bound that says so
        if not field.init:
            continue
        default = dataclasses.MISSING
        if base is not None:
            default = getattr(base, field.name)
        elif field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        inner, value = dataclass_in(hints[_key(field)]), found.get(_key(field), default)
        if value is dataclasses.MISSING:
            raise HardspikeError(f"key '{_key(field)}' is missing; {cls.__name__} has no default for it")
        if inner and isinstance(value, dict):
            value = built(inner, value, default if isinstance(default, inner) else None)
        arguments[field.name] = value
    return cls(**arguments)


def converted(hint: Any, value: Any, where: str, text: bool = False) -> Any:
    """`value` as `hint` asks for it.

    Args:
        text: the value is a word of the command line: numbers and `null` are looked for before text.

    Raises:
        HardspikeError: it is of another type, not finite, or beyond 64 bits; `where` names it.
    """
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in members:
        return None
    if text and value in ("null", "None") and type(None) in members:
        return None
    # as it is before converted; of a word that may be a number or text, the number
    order = sorted(members, key=lambda member: (member is str) if text else (member is not type(value)))
    refusal = None
    for member in order:
        if member is type(None):
            continue
        try:
            return _one(member, value, where)
        except _Mismatch:
            continue
        except HardspikeError as error:  # of the right kind, but out of its range
            refusal = refusal or error
    if refusal:
        raise refusal
    raise HardspikeError(f"{where} {shown(value)}: must be {' or '.join(_named(member) for member in members)}"
                         f"{_advice(value, members)}")


def bare(hint: Any) -> Any:
    """An annotation without what `Annotated` says besides, alone or beside None."""
    if typing.get_origin(hint) is typing.Annotated:
        return typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(bare, typing.get_args(hint)))]  # noqa: UP007  # made of values
    return hint


def dataclass_in(hint: Any) -> type | None:
    """The dataclass that `hint` is, alone or beside None."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    found = [member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)]
    return found[0] if found else None


def only_list(hint: Any) -> bool:
    """Whether `hint` takes nothing but a list, or None."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = {typing.get_origin(member) or member for member in members} - {type(None)}
    return bool(kinds) and kinds <= {list, tuple}


class _Mismatch(Exception):
    """The value is of another type."""


def _one(hint: Any, value: Any, where: str) -> Any:
    """`value` as one annotation that is no union."""
    kind = typing.get_origin(hint) or hint
    if kind is Any:
        return value
    if kind is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise _Mismatch
    if kind in (list, tuple, dict):
        return _several(kind, typing.get_args(hint), value, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_values(kind, value, where)
    if kind is Path:
        if isinstance(value, Path) or (isinstance(value, str) and value and "\0" not in value):
            return Path(value)
        raise _Mismatch
    if kind is str and isinstance(value, str):
        return value
    if kind is bool:
        return _boolean(value)
    if kind in (int, float):
        return _number(kind, value, where)
    if kind not in _NAMES:
        raise TypeError(f"{where}: annotation {hint} is not one that a value can be checked against")
    raise _Mismatch


def _several(kind: type, inner: tuple, value: Any, where: str) -> Any:
    """A list, tuple or dict, each value checked."""
    if not isinstance(value, dict if kind is dict else list | tuple):
        raise _Mismatch
    if len(value) > LONGEST_LIST:
        raise HardspikeError(f"{where}: {len(value)} values: must be at most {LONGEST_LIST}")
    if isinstance(value, dict):
        hint = inner[1] if inner else Any
        return {str(key): converted(hint, one, f"{where}.{key}") for key, one in value.items()}
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise HardspikeError(f"{where} {shown(value)}: must be {len(inner)} values")
        hints = inner
    else:
        hints = (inner[0] if inner else Any,) * len(value)
    return kind(converted(hint, one, f"{where}[{at}]") for at, (hint, one) in enumerate(zip(hints, value, strict=True)))


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        return _BOOLEANS[value.strip().lower()]
    raise _Mismatch


def _number(kind: type, value: Any, where: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Mismatch
    number = value
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            if len(value) > 60:  # more digits than Python reads, at some length
                raise HardspikeError(f"{where} {shown(value)}: must be at most {LARGEST_INTEGER:.6g}")
            number = int(value, 0 if "x" in value else 10)
        elif _FLOAT.fullmatch(value) or _NOT_FINITE.fullmatch(value):
            number = float(value.replace(".i", "i").replace(".n", "n"))
        else:
            raise _Mismatch
    if isinstance(number, int):
        if abs(number) > LARGEST_INTEGER:
            limit = f"at most {LARGEST_INTEGER:.6g}" if number > 0 else f"at least {-LARGEST_INTEGER:.6g}"
            raise HardspikeError(f"{where} {shown(number)}: must be {limit}")
        return kind(number)
    assert isinstance(number, float)
    if not math.isfinite(number):
        raise HardspikeError(f"{where} {shown(value)}: must be a finite number")
    if kind is int:
        raise _Mismatch
    return float(number)


def _named(hint: Any) -> str:
    kind = typing.get_origin(hint) or hint
    if kind is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    return "keys and values" if dataclasses.is_dataclass(kind) else _NAMES.get(kind, str(hint))


def _advice(value: Any, members: tuple) -> str:
    if str in members and isinstance(value, int | float) and not isinstance(value, bool):
        return f"; write it in quotes, '{value}'"
    if value is None:
        return "; leave the key out for the default"
    return ""


def _allows_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _hints(cls: type) -> dict[str, Any]:
    """Key -> annotation, those alone that a caller may set."""
    hints = typing.get_type_hints(cls)
    return {_key(field): hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _key(field: dataclasses.Field) -> str:
    """A field's name as files and command lines write it: `from` for `from_`, which Python keeps to itself."""
    return field.name.removesuffix("_")


def laid_upon(base: dict, over: dict) -> dict:
    """`over` on top of `base`, nested."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = laid_upon(result[key], value) if both else value
    return result
