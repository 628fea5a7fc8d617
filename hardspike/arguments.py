"""The arguments of a command, read off its function: signature, docstring, dataclasses."""

import argparse
import dataclasses
import inspect
import re
import shutil
import textwrap
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hardspike.errors import HardspikeError, UsageError, nearest, one_line
from hardspike.files import STDOUT
from hardspike.outputs import Destination, check_outputs, destination_in
from hardspike.plain import parse_yaml, read_yaml
from hardspike.shipped import shipped
from hardspike.values import bare, built, checked, converted, dataclass_in, laid_upon, only_list, to_values

__all__ = ["Call", "arguments", "docstring", "parser"]

_SECTION = re.compile(r"(Args|Arguments|Returns|Raises|Yields|Notes?|Examples?):\s*$")
_NUMBER_BELOW_ZERO = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)
GIVEN = "given"
"""The parameter that is told which keys of `config` were set, on the command line or in a file; no argument itself."""
SHIPPED = "SHIPPED"
"""Class attribute of a configuration whose files come with the package: their folder. `--config` then takes a name,
too."""
_POSITIONAL = "\0"
"""Before a word that stands behind `--`, which argparse loses where positional words and options are mixed. No word
of a command line holds it."""


@dataclass
class _Argument:
    """One argument: `key` as it is written on the command line, without dashes; `path` to its value, that is the
    function's parameter and, where that is a dataclass, fields."""

    key: str
    path: tuple[str, ...]
    hint: Any
    help: str
    default: Any = None
    kind: str = "option"  # or positional, several (positional), flag, section (a nested dataclass)
    group: str = ""
    output: Destination | None = field(init=False)

    def __post_init__(self):
        self.output, self.hint = destination_in(self.hint), bare(self.hint)

    @property
    def option(self) -> str:
        """As it is written on the command line."""
        return self.key if self.kind in ("positional", "several") else f"--{self.key}"


@dataclass(frozen=True)
class Call:
    """What a function is called with.

    Args:
        args, kwargs: of the function.
        origin: files that the configuration comes from, for errors; empty for none.
        alone: standard output is for one of its outputs alone.
    """

    args: list
    kwargs: dict[str, Any]
    origin: str = ""
    alone: bool = False


def arguments(function: Callable, prog: str, words: list[str]) -> Call | str:
    """What to call `function` with, or the text to print instead: its help, or the configuration.

    Where a command writes (`hardspike.outputs`) is tried here, before its work begins.

    Args:
        prog: begins the usage, as `python -m trainer fit`.
        words: of the command line, behind the command's name.

    Raises:
        UsageError: the words do not fit; one line.
        HardspikeError: what a dataclass refuses by itself; a file to write that cannot be written.
    """
    known = _arguments(function)
    options = {one.key: one for one in known if one.kind in ("option", "flag", "section")}
    configs = _configs(function)
    names = ["help", *options, *(["config", "print_config"] if "config" in configs else [])]
    words = _normal(words, names)
    if {"--help", "-h"} & set(words):
        return _help(function, prog, known, "config" in configs)
    # intermixed: `a.pt --split test b.pt` are two models
    parsed, rest = _parser(prog, known, "config" in configs).parse_known_intermixed_args(words)
    given = vars(parsed)
    if rest:
        word = rest[0].partition("=")[0].lstrip("-")
        near = nearest(f"--{word}", [f"--{name}" for name in names]) if rest[0].startswith("-") else ""
        raise UsageError(f"unrecognized arguments: {' '.join(rest).replace(_POSITIONAL, '')}{near}")
    files, printing = given.pop("config", []), given.pop("print_config", False)
    found, origin = _from_files(files, configs.get("config"), options)
    for key, said in given.items():
        _set(found, next(one for one in known if one.key == key), said)
    call = _values(function, configs, found, origin, printing)
    if isinstance(call, str):
        return call
    outputs, inputs = _places(known, call)
    return replace(call, alone=check_outputs(outputs, [*map(Path, files), *inputs]))


def parser(function: Callable, prog: str) -> tuple[argparse.ArgumentParser, set[str]]:
    """What takes a command's words apart, and which of them are files or folders."""
    known, config = _arguments(function), "config" in _configs(function)
    paths = {one.key for one in known if one.hint in (Path, Path | None)} | ({"config"} if config else set())
    return _parser(prog, known, config), paths


def docstring(thing: Any) -> tuple[str, str, dict[str, str]]:
    """First line, text before the first section, and what `Args:` says of each argument."""
    text, helps, name, section = [], {}, None, None
    for line in (inspect.getdoc(thing) or "").splitlines():
        if found := _SECTION.match(line):
            section = found[1]
        elif section is None:
            text.append(line)
        elif section == "Args" and (found := re.match(r" {4}\*{0,2}(\w+)(?: \([^)]*\))?:\s*(.*)", line)):
            name = found[1]
            helps[name] = found[2]
        elif section == "Args" and name and line.strip():
            helps[name] = f"{helps[name]} {line.strip()}".strip()
    return text[0] if text else "", "\n".join(text).strip(), helps


def _parameters(function: Callable) -> list[inspect.Parameter]:
    """Parameters with their annotations. What the function returns may be a name that only a type checker imports."""
    names = inspect.unwrap(function).__globals__
    return [p.replace(annotation=eval(p.annotation, names)) if isinstance(p.annotation, str) else p
            for p in inspect.signature(function).parameters.values() if p.name != GIVEN]


def _configs(function: Callable) -> dict[str, type]:
    """Parameter -> its dataclass, for those that are given key by key."""
    return {p.name: p.annotation for p in _parameters(function)
            if isinstance(p.annotation, type) and dataclasses.is_dataclass(p.annotation)}


def _arguments(function: Callable) -> list[_Argument]:
    helps, found = docstring(function)[2], []
    for p in _parameters(function):
        text, needed = helps.get(p.name, ""), p.default is p.empty
        if p.name in _configs(function):
            found += _fields(p.annotation, None if needed else p.default, (p.name,), text)
        elif p.kind is p.VAR_POSITIONAL or needed:
            kind = "several" if p.kind is p.VAR_POSITIONAL else "positional"
            found.append(_Argument(p.name, (p.name,), p.annotation, text, kind=kind))
        else:
            kind = "flag" if p.annotation is bool and p.default is False else "option"
            found.append(_Argument(p.name, (p.name,), p.annotation, text, p.default, kind))
    return found


def _fields(cls: type, base: Any, path: tuple[str, ...], group: str) -> list[_Argument]:
    """An argument for every field of a dataclass, those of nested ones included."""
    helps, hints, found, nested = docstring(cls)[2], typing.get_type_hints(cls, include_extras=True), [], []
    base = cls() if base is None else base
    for name in (one.name for one in dataclasses.fields(cls)):
        own = (*path, name.removesuffix("_"))  # `from_` is written `from`
        key, hint = ".".join(own[1:]), hints[name]
        text, default = helps.get(name, ""), getattr(base, name)
        if inner := dataclass_in(hint):
            nested.append(_Argument(key, own, hint, text, kind="section", group=text))
            nested += _fields(inner, default, own, text)
        else:
            # what a file may set, an option must be able to set back: no flags in a configuration
            kind = "flag" if hint is bool and default is False and path[0] != "config" else "option"
            found.append(_Argument(key, own, hint, text, default, kind, group))
    return found + nested


def _normal(words: list[str], names: list[str]) -> list[str]:
    """`--no-check=x` as `--no_check=x`, `-o` as `--out`, `--seed -1e3` as `--seed=-1e3`: all spellings work."""
    result: list[str] = []
    for at, word in enumerate(words):
        if word == "--":
            return result + [_POSITIONAL + word for word in words[at + 1:]]
        if word == "-o" and "out" in names:
            word = "--out"
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            word = "--" + name[2:].replace("-", "_") + equals + value
        elif _NUMBER_BELOW_ZERO.match(word) and result and result[-1].startswith("--") and "=" not in result[-1]:
            result[-1] += f"={word}"
            continue
        result.append(word)
    return result


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(one_line(Exception(message)))


def _parser(prog: str, known: list[_Argument], config: bool) -> _Parser:
    """It takes words apart; what they mean is found out by `converted`. Only what was given is in its answer."""
    parser = _Parser(prog=prog, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for one in known:
        if one.kind in ("positional", "several"):
            parser.add_argument(one.key, nargs="+" if one.kind == "several" else None)
        elif one.kind == "flag":
            parser.add_argument(f"--{one.key}", action="store_true")
        else:
            parser.add_argument(f"--{one.key}")
    if config:
        parser.add_argument("--config", action="append")
        parser.add_argument("--print_config", action="store_true")
    return parser


def _from_files(files: list[str], cls: type | None, options: dict[str, _Argument]) -> tuple[dict[str, Any], str]:
    """What the files of `--config` hold, as {parameter: value}, and their names for errors."""
    found: dict[str, Any] = {}
    for file in files:
        try:
            assert cls  # only a command with a configuration takes files of one
            folder = getattr(cls, SHIPPED, None)
            values = read_yaml(shipped(file, folder) if folder else file)
            own = [key for key in values if key in options and options[key].path[0] != "config"]
            for key in own:  # options of the command beside its configuration, which --print_config writes, too
                found[key] = converted(options[key].hint, values.pop(key), f"{file}: {key}")
            found["config"] = laid_upon(found.get("config", {}), checked(cls, values, f"{file}: "))
        except HardspikeError as error:
            raise UsageError(str(error)) from error
    return found, " and ".join(files)


def _set(found: dict[str, Any], argument: _Argument, words: Any) -> None:
    """Put what the command line gives for `argument` into {parameter: value}, over what is there.

    Raises:
        UsageError: it is not what the argument's annotation asks for.
    """
    where = argument.option
    if argument.kind in ("option", "section") and words.startswith(_POSITIONAL):
        raise UsageError(f"argument {where}: expected one argument, and '--' follows")
    try:
        if argument.kind == "several":
            value: Any = [_converted(argument.hint, word.removeprefix(_POSITIONAL), where) for word in words]
        else:
            value = True if argument.kind == "flag" else _converted(argument.hint, words.removeprefix(_POSITIONAL),
                                                                    where)
    except HardspikeError as error:
        raise UsageError(str(error)) from error
    if argument.output and value == STDOUT and words != str(STDOUT):  # ./-, of which a path keeps the dash alone
        value = value.absolute()
    nested: Any = value
    for key in reversed(argument.path):
        nested = {key: nested}
    found.update(laid_upon(found, nested))


def _converted(hint: Any, word: str, where: str) -> Any:
    """One word of the command line; lists and mappings are written as in YAML, `[1, 2]` and `{key: value}`, lists also
    without brackets where nothing but a list is asked for: `1,2`."""
    cls = dataclass_in(hint)
    if only_list(hint) and word[:1] not in ("[", "{", "") and word not in ("null", "None"):
        return converted(hint, [one.strip() for one in word.split(",")], where)
    if not cls and word[:1] not in ("[", "{"):
        return converted(hint, word, where, text=True)
    if cls and word[:1] != "{":
        if word == "null" and hint is not cls:
            return None
        raise UsageError(f"{where} '{word}': must be {{key: value, ...}}; or give its keys one by one, {where}.KEY")
    if not cls and hint in (str, Path):
        return converted(hint, word, where, text=True)
    values = parse_yaml(word, where)
    return checked(cls, values, f"{where} ") if cls else converted(hint, values, where)


def _values(function: Callable, configs: dict[str, type], found: dict[str, Any], origin: str,
            printing: bool) -> Call | str:
    """What to call the function with, or the configuration as YAML where that is asked for."""
    args, kwargs = [], {}
    for p in _parameters(function):
        if p.name in configs:
            base = None if p.default is p.empty else p.default
            try:
                kwargs[p.name] = built(configs[p.name], found.get(p.name, {}), base)
            except HardspikeError as error:
                raise UsageError(f"{error} (with --config {origin})" if p.name == "config" and origin else
                                 str(error)) from error
        elif p.kind is p.VAR_POSITIONAL:
            args = found.get(p.name, [])
        elif p.name in found:
            kwargs[p.name] = found[p.name]
    if not printing:
        if GIVEN in inspect.signature(function).parameters:
            kwargs[GIVEN] = frozenset(_dotted(found.get("config", {})))
        return Call(args, kwargs, origin)
    import yaml

    options = {p.name: kwargs.get(p.name, p.default) for p in _parameters(function)
               if p.name not in configs and p.kind is not p.VAR_POSITIONAL}
    return yaml.safe_dump(to_values(kwargs["config"]) | options, sort_keys=False)


def _places(known: list[_Argument], call: Call) -> tuple[list[tuple[str, Path, Destination]], list[Path]]:
    """What a call writes, with its options, and what it reads."""
    outputs: list[tuple[str, Path, Destination]] = []
    inputs: list[Path] = []
    for one in known:
        value: Any = call.args if one.kind == "several" else call.kwargs.get(one.path[0], one.default)
        for name in one.path[1:]:
            value = getattr(value, name, None)
        if not one.output:
            inputs += [place for place in (value if one.kind == "several" else [value]) if isinstance(place, Path)]
        elif value is not None:
            outputs.append((one.option, value, one.output))
    return outputs, inputs


def _dotted(values: dict[str, Any]) -> list[str]:
    """Keys of nested mappings, `network.beta`."""
    return [key if inner is None else f"{key}.{inner}" for key, value in values.items()
            for inner in (_dotted(value) if isinstance(value, dict) else [None])]


def _help(function: Callable, prog: str, known: list[_Argument], config: bool) -> str:
    width = min(shutil.get_terminal_size().columns, 120)
    positional = [one for one in known if one.kind in ("positional", "several")]
    usage = " ".join([f"usage: {prog}", *(one.key.upper() + (" ..." if one.kind == "several" else "")
                                          for one in positional), "[options]"])
    paragraphs = [textwrap.fill(" ".join(text.split()), width) for text in docstring(function)[1].split("\n\n")]
    lines = [usage, "", "\n\n".join(paragraphs)]
    groups: dict[str, list[tuple[str, str]]] = {}
    for one in positional:
        groups.setdefault("arguments", []).append((one.key.upper(), one.help))
    groups["options"] = [("--help, -h", "show this and leave")]
    if config:
        groups["options"] += [("--config FILE", "YAML file with options, or the name of a shipped one; those of the "
                                                "command line override it"),
                              ("--print_config", "print all of it as YAML, with what else is given, and leave")]
    for one in known:
        if one.kind in ("option", "flag"):
            title = one.group or "options"
            groups.setdefault(title, []).append(_option_help(one))
    for title, entries in groups.items():
        lines += ["", f"{title}:"]
        for name, text in entries:
            lines += _entry(name, text, width)
    return "\n".join(lines) + "\n"


def _option_help(one: _Argument) -> tuple[str, str]:
    if one.kind == "flag":
        return f"--{one.key}", one.help
    words = "true|false" if one.hint is bool else one.key.rpartition(".")[2].upper()
    name = f"--{one.key} {words}" + (" (-o)" if one.key == "out" else "")
    text = one.help + ("; - for standard output" if one.output and one.output.kind == "text" else "")
    default = "" if one.default is None else str(one.default)
    default = default.lower() if isinstance(one.default, bool) else default
    return name, f"{text} (default: {default})".strip() if default else text


def _entry(name: str, text: str, width: int) -> list[str]:
    wrapped = textwrap.wrap(text, width - 24) or [""]
    if len(name) > 20:
        return [f"  {name}", *(f"{'':24}{line}" for line in wrapped if line)]
    return [f"  {name:22}{wrapped[0]}".rstrip(), *(f"{'':24}{line}" for line in wrapped[1:])]
