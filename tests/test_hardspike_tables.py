"""Tables on the terminal, as JSON and as CSV."""

import csv
import json
import math
import sys

from hardspike import csv_cell, print_table, progress

HOSTILE = ["[bold red]x", "[/x]", "\x1b]0;pwned\x07", "a\nb", ":smile:", "=1+1", "\u202e", "\\[x]"]


def test_columns_come_from_all_rows(tmp_path, capsys):
    rows = [{"a": 1}, {"b": 2.123456, "a": None}, {"c": True}]
    print_table(rows, "title", tmp_path / "t.json", {"more": 5}, tmp_path / "t.csv")
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed[0] == ["title"] and printed[2] == ["┃", "a", "┃", "b", "┃", "c", "┃"]
    assert [line[1::2] for line in printed[4:7]] == [["1", "-", "-"], ["-", "2.123", "-"], ["-", "-", "yes"]]
    assert json.loads((tmp_path / "t.json").read_text()) == {"title": "title", "rows": rows, "more": 5}
    assert list(csv.reader((tmp_path / "t.csv").open())) == [["a", "b", "c"], ["1", "", ""], ["", "2.123456", ""],
                                                             ["", "", "True"]]


def test_a_table_too_wide_to_be_read_lies_on_its_side(capsys):
    rows = [{"model": name, **{f"lif{n} spikes": n * by for n in range(60)}} for name, by in (("a", 1), ("b", 10))]
    print_table(rows, "title")
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed[0] == ["title"] and printed[2] == ["│", "model", "│", "a", "│", "b", "│"]
    assert printed[3 + 59] == ["│", "lif59", "spikes", "│", "59", "│", "590", "│"]
    print_table([{key: value for key, value in row.items() if key != "lif59 spikes"} for row in rows[:1]] * 99)
    assert len(capsys.readouterr().out.splitlines()[0]) == 200  # as many rows as columns stay rows


def test_names_are_no_markup_and_steer_no_terminal(capsys):
    print_table([{name: name for name in HOSTILE}], HOSTILE[0])
    said = capsys.readouterr().out
    assert said.startswith("[bold red]x  ") and said.replace("\n", "").isprintable()
    for part in ("[/x]", r"\x1b]0;pwned\x07", r"a\nb", ":smile:", r"\u202e", r"\[x]"):
        assert said.count(part) == 2
    print_table([], "[/x]")
    assert capsys.readouterr().out == "[/x]\n"


def test_spreadsheets_see_no_formula(tmp_path, capsys):
    rows = [{"=head": text} for text in ("=1+1", "+1", "-1", "@x", "\tx", "\rx", "\n=1", "a=1", "-", -1, -1.5, None)]
    print_table(rows, csv_file=tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        assert [row[0] if row else "" for row in csv.reader(file)] == [
            "'=head", "'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx", "'\n=1", "a=1", "'-", "-1", "-1.5", ""]
    assert csv_cell(-1) == -1 and csv_cell(False) is False and math.isnan(csv_cell(math.nan))


def test_what_is_written_has_no_nan(tmp_path, capsys):
    print_table([{"a": math.nan, "b": math.inf, "c": tmp_path}], json_file=tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["rows"] == [{"a": None, "b": None, "c": str(tmp_path)}]


def test_without_standard_output_the_files_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    print_table([{"a": 1}], json_file=tmp_path / "t.json")
    assert (tmp_path / "t.json").exists()


def test_progress_goes_through_its_items():
    assert list(progress([1, 2], "\x1b[2J")) == [1, 2]
