"""Plain values out of files, and dataclasses out of plain values."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from hardspike import (
    HardspikeError,
    UsageError,
    from_values,
    nearest,
    parse_json,
    parse_yaml,
    printable,
    read_yaml,
    shown,
    to_values,
)
from hardspike.plain import DEEPEST, LARGEST_FILE, MOST_VALUES
from trainer.config import FitConfig, from_dict

# ----------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(("text", "value"), [
    ("1e-3", 0.001), ("1e3", 1000.0), ("-.5", -0.5), ("5.", 5.0), ("010", 10), ("0x10", 16), ("-3", -3),
    ("true", True), ("False", False), ("yes", "yes"), ("null", None), ("~", None), ("''", ""), ("'1'", "1"),
    ("2024-01-01", "2024-01-01"), ("1:30", "1:30"), ("1_0", "1_0"), ("=", "="), ("!!str 5", "5"), ("! 5", "5"),
    ("!!float '1e3'", 1000.0), ("[1, [a, {b: c}]]", [1, ["a", {"b": "c"}]]), ("{}", {}), ("", None),
    ("{on: 1, null: 2, 1e3: 3, 5: 4}", {"on": 1, "null": 2, "1e3": 3, "5": 4}),
    ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: *x", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3},
                                                     "c": {"p": 1, "q": 2}}),
    ("|\n  text\n  more", "text\nmore"),
])
def test_yaml_is_plain_values(text, value):
    found = parse_yaml(text, "f")
    assert found == value and type(found) is type(value)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(("text", "reason"), [
    (BOMB, f"line 5: more than {MOST_VALUES:,} values"),
    ("a: &a [*a]", "alias '\\*a' of no value before it"),
    ("a: &a {b: *a}", "alias"),
    ("a: *nothing", "alias"),
    ("a: " + "[" * 20_000, f"deeper than {DEEPEST} levels"),
    ("{a: " * 20_000, f"deeper than {DEEPEST} levels"),
    ("- " * 20_000, f"deeper than {DEEPEST} levels"),
    ("[" + "x," * (MOST_VALUES + 1) + "]", "more than"),
    ("a: 1\nb: 2\na: 3", "line 3: key 'a' is given twice"),
    ("a: .nan", "line 1: .nan: must be a finite number"),
    ("a: -.inf", "finite"),
    ("a: 1e999", "finite"),
    ("a: 9223372036854775808", r"line 1: 9223372036854775808: must be at most 9.22337e\+18"),
    ("a: " + "9" * 5000, "must be at most"),
    ("a: !!python/object/apply:os.system [touch x]", "tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
    ("a: !!python/name:os.system", "tag"),
    ("a: !!binary aGk=", "tag"),
    ("a: !!timestamp 2024-01-01", "tag"),
    ("a: !!set {b}", "tag"),
    ("? [a, b]\n: c", "key that is no text"),
    ("a: 1\n---\nb: 2", "second document"),
    ("a: {b", "cannot be read as YAML"),
    ("a: b\x07", "cannot be read as YAML"),
    ("a: {<<: 5}", "merges keys and values only"),
])
def test_yaml_that_is_refused_in_one_line(text, reason):
    with pytest.raises(HardspikeError, match=rf"^here.*{reason}") as raised:
        parse_yaml(text, "here")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "is empty; it is to hold keys and values"), (b"# nothing\n", "is empty"), (b"- a\n", "holds a list"),
    (b"text", "holds the single value 'text'"), (b"a: \xff", "is no text in UTF-8 \\(byte 3\\)"),
    (b"\xff\xfea\x00", "is no text in UTF-8"), (b"#" * (LARGEST_FILE + 1), "larger than 256 kB"),
])
def test_files_that_are_no_keys_and_values(content, reason, tmp_path):
    (tmp_path / "f.yaml").write_bytes(content)
    with pytest.raises(HardspikeError, match=rf"f\.yaml: {reason}"):
        read_yaml(tmp_path / "f.yaml")


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: reading would wait for ever
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path, tmp_path / "none", "x" * 300, "a\0b"):
        with pytest.raises(HardspikeError, match="give a YAML file"):
            read_yaml(path)
    (tmp_path / "f.yaml").write_bytes("\ufeffa: ä".encode())
    assert read_yaml(tmp_path / "f.yaml") == {"a": "ä"}


@pytest.mark.parametrize(("text", "reason"), [
    ("{", "cannot be read as JSON"), ("[" * 100_000, "deeper than 32 levels"), ("[" * 50 + "]" * 50, "deeper than"),
    ('{"a": NaN}', "finite"), ('{"a": -Infinity}', "finite"), ('{"a": 1e999}', "finite"),
    ('{"a": 1' + "0" * 30 + "}", "64 bits"), ('{"a": 1' + "0" * 5000 + "}", "64 bits"),
    ('{"a": 1, "a": 2}', "given twice"), (b"\xff\xfe\xfd", "cannot be read as JSON"), ("[1]" * 200_000, "longer than"),
])
def test_json_that_is_refused_in_one_line(text, reason):
    with pytest.raises(HardspikeError, match=rf"^here.*{reason}") as raised:
        parse_json(text, "here")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
    assert not any(word in str(raised.value) for word in ("recursion", "sys."))  # Python's own words
    assert parse_json('{"a": [1, 2.5, null, true]}', "here") == {"a": [1, 2.5, None, True]}


# ------------------------------------------------------------------------------------------------ dataclasses


@dataclass
class Inner:
    rate: float = 0.5
    name: str | None = None

    def __post_init__(self):
        if self.rate < 0:
            raise UsageError(f"rate {self.rate}: must be 0 or more")


@dataclass
class Outer:
    needed: int
    path: Path = Path("a")
    flag: bool = False
    pair: tuple[int, float] = (1, 2.0)
    many: list[Inner] = field(default_factory=list)
    table: dict[str, float] = field(default_factory=dict)
    word: Literal["big", "small"] = "big"
    either: int | str | None = None
    whatever: Any = None
    inner: Inner = field(default_factory=lambda: Inner(rate=0.25))
    maybe: Inner | None = None
    made: int = field(default=0, init=False)


def test_values_become_what_annotations_say():
    values = {"needed": "3", "path": "x/y", "flag": "yes", "pair": [4, 5], "many": [{"rate": 1}, {}],
              "table": {"a": "1e-3"}, "word": "small", "either": "7", "whatever": {"x": [1]}, "inner": {"name": "n"},
              "maybe": {"rate": 2}}
    found = from_values(Outer, values, "f")
    assert found == Outer(3, Path("x/y"), True, (4, 5.0), [Inner(1.0), Inner()], {"a": 1e-3}, "small", "7", {"x": [1]},
                          Inner(0.25, "n"), Inner(2.0))
    assert isinstance(found.pair[1], float) and isinstance(found.many[0].rate, float)
    assert from_values(Outer, to_values(found), "f") == found and to_values(found)["path"] == "x/y"
    assert from_values(Outer, {"inner": {"rate": 1}}, "f", base=found) == Outer(
        3, Path("x/y"), True, (4, 5.0), [Inner(1.0), Inner()], {"a": 1e-3}, "small", "7", {"x": [1]}, Inner(1.0, "n"),
        Inner(2.0))


@pytest.mark.parametrize(("values", "reason"), [
    ({}, "key 'needed' is missing"), (None, "null: must hold keys and values"), ([], r"\[\]: must hold keys"),
    ("/etc/passwd", "'/etc/passwd': must hold keys"), ({"made": 1}, "'made' is unknown"),
    ({"inner": {"rat": 1}}, "'inner.rat' is unknown; did you mean 'inner.rate'"),
    ({"innr": None}, "did you mean 'inner'"), ({"inner": None}, "inner null: must hold keys and values: rate, name"),
    ({"inner": {"class_path": "extras.X"}}, "'inner.class_path' is unknown"),
    ({"inner": {"rate": None}}, "inner.rate null: must be a number; leave the key out for the default"),
    ({"inner": {"rate": True}}, "inner.rate true: must be a number"),
    ({"needed": 1, "inner": {"rate": -1}}, "must be 0 or more"),
    ({"inner": {"rate": float("nan")}}, "inner.rate nan: must be a finite number"),
    ({"inner": {"rate": "inf"}}, "finite"), ({"inner": {"name": 5}}, "write it in quotes, '5'"),
    ({"needed": 3.0}, "needed 3.0: must be a whole number"), ({"needed": 2**63}, r"must be at most 9.22337e\+18"),
    ({"needed": -2**70}, r"must be at least -9.22337e\+18"), ({"needed": 1 << 100_000}, "an integer of 100001 bits"),
    ({"needed": "1" * 5000}, "must be at most"), ({"needed": []}, r"needed \[\]"), ({"path": ""}, "must be a path"),
    ({"path": "a\0b"}, "must be a path"), ({"flag": 1}, "flag 1: must be true or false"),
    ({"pair": [1]}, "must be 2 values"), ({"pair": [1, "x"]}, r"pair\[1\] 'x': must be a number"),
    ({"pair": 5}, "pair 5: must be a list"), ({"many": [{"rate": "x"}]}, r"many\[0\]: rate 'x'"),
    ({"many": [0] * 20_000}, "at most 10000"), ({"table": {"a": None}}, "table.a null"),
    ({"word": "bug"}, "must be one of big, small"), ({"either": 1.5}, "must be a whole number or text or null"),
    ({5: 1}, "key '5' is unknown"), ({("a", 1): 1}, "is unknown"), ({"x\x1b[31m" * 500: 1}, r"\\x1b"),
    ({"path": "x" * 100_000}, "key 'needed' is missing"), ({"flag": "x" * 100_000}, "must be true or false"),
])
def test_values_that_do_not_fit_are_one_line(values, reason):
    with pytest.raises(HardspikeError, match=rf"^f\.yaml: .*{reason}") as raised:
        from_values(Outer, values, "f.yaml")
    said = str(raised.value)
    assert not isinstance(raised.value, UsageError) and said.isprintable() and len(said) < 400


def test_annotations_that_cannot_be_checked_are_the_programmers_fault():
    @dataclass
    class Odd:
        at: set[int] = field(default_factory=set)

    with pytest.raises(TypeError, match="annotation"):
        from_values(Odd, {"at": [1]}, "f")


def test_a_value_that_nests_itself_is_refused():
    """A pickled mapping can hold itself."""
    values: dict = {}
    values["inner"] = values
    with pytest.raises(HardspikeError, match=r"'inner\.inner' is unknown"):
        from_values(Outer, values, "f")


@pytest.mark.parametrize("values", [
    {"data": {"class_path": "extras.X"}}, {"data": "/etc/passwd"}, {"data": "extras.X"},
    {"network": {"surrogate": {"class_path": "extras.X"}}},
    {"class_path": "extras.X"}, {"__path__": "/etc/passwd"}, {"config": "/etc/passwd"},
    {"sast": {"class_path": "extras.X", "dict_kwargs": {}}},
])
def test_a_configuration_imports_and_opens_nothing(values, tmp_path, monkeypatch):
    """What a checkpoint, a graph's metadata or a study says of a run."""
    (tmp_path / "extras.py").write_text("raise AssertionError('imported')\nclass X: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(HardspikeError, match=r"^m\.nir: "):
        from_dict(values, "m.nir")


@pytest.mark.parametrize(("values", "reason"), [
    ({"epochs": None}, "epochs null: must be a whole number"), ({"data": []}, r"data \[\]: must hold keys and values"),
    ({"netwrok": {}}, "did you mean 'network'"), ({"epochs": 0}, "epochs 0: must be 1 or more"),
    ({"network": {"gain": float("inf")}}, "network.gain inf: must be a finite number"),
])
def test_a_runs_configuration_names_where_it_comes_from(values, reason):
    with pytest.raises(HardspikeError, match=rf"^best\.pt: .*{reason}"):
        from_dict(values, "best.pt")


def test_nested_defaults_are_those_of_the_whole():
    assert from_dict({"network": {"surrogate": {"slope": 2}}}, "f").network.surrogate.name == \
        FitConfig().network.surrogate.name


# ------------------------------------------------------------------------------------------------------ text


def test_names_are_printed_as_text():
    assert printable("größe – 脈衝 x") == "größe – 脈衝 x"
    assert printable("a\x1b[2Jb\n\t\x7f\x9b\u202e\u2028\u200b\udcff") == \
        r"a\x1b[2Jb\n\t\x7f\x9b\u202e\u2028\u200b\udcff"


def test_any_value_is_shown_short():
    class Rude:
        def __repr__(self):
            raise RuntimeError

    nested: list = []
    nested.append(nested)
    for value in (Rude(), nested, {"a": nested}, "x" * 10**6, 1 << 10**6, b"\0" * 10**6, [[0] * 10**4] * 10**4, None):
        assert len(shown(value)) < 200 and shown(value).isprintable()
    assert nearest("x" * 10**6, ["xy"]) == ""
