"""Memory is asked for before it is taken; files are looked at before they are read; errors can be read."""

import os

import pytest

from hardspike import HardspikeError, UsageError, few, file_size, free_memory, memory, read_bytes, require_memory


def test_free_memory_is_no_more_than_the_machine_has():
    assert 0 < free_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_what_needs_more_than_its_share_is_refused_with_numbers(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 10**10)
    require_memory(7.9e9, "x", "y")
    with pytest.raises(
        HardspikeError, match=r"x needs about 8\.1 GB of memory, where 8 GB \(80% of what is free\) may"
    ):
        require_memory(8.1e9, "x", "y")


def test_a_file_is_looked_at_before_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"x" * 100)
    assert read_bytes(tmp_path / "f", 100, "file") == b"x" * 100
    with pytest.raises(HardspikeError, match=r"a file of at most .* is read"):
        read_bytes(tmp_path / "f", 99, "file")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("pipe", "is a pipe"),
        ("", "is a folder"),
        ("absent", "no such file"),
        ("x" * 300, "too long"),
        ("a\0", "cannot be read"),
        ("f/g", "cannot be read"),
    ):
        with pytest.raises(HardspikeError, match=message):
            file_size(tmp_path / name, 100, "file")
    monkeypatch.setattr(memory, "free_memory", lambda: 50)
    with pytest.raises(HardspikeError, match="needs about"):
        read_bytes(tmp_path / "f", 100, "file")


@pytest.mark.parametrize("kind", [HardspikeError, UsageError])
def test_an_error_is_one_printable_line_whatever_it_quotes(kind):
    error = kind("a\x1b[31m\nb\u202e" + "c" * 1000 + "; do this")
    assert str(error).isprintable() and len(str(error)) <= 480
    assert str(error).startswith(r"a\x1b[31m\nb\u202e") and str(error).endswith("; do this")
    assert str(kind("short")) == "short" and str(kind()) == ""


def test_a_list_of_names_is_short():
    assert few(["a", "b"]) == "a, b"
    assert few([f"n{i}" for i in range(100)], 3) == "n0, n1, n2 and 97 more"
    assert len(few(["x" * 1000] * 9)) < 300 and few(["\x1b"]) == r"\x1b"
