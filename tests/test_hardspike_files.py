"""Files are written whole or not at all; one process a run's folder."""

import errno
import json
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hardspike import (
    HardspikeError,
    atomic_path,
    cache_folder,
    files,
    lock,
    require_writable,
    run_lock,
    write_bytes,
    write_text,
)


@pytest.fixture
def dead() -> int:
    """The number of a process that is gone."""
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


@pytest.fixture
def unprivileged():
    """Run as somebody whom permissions hold back."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# ------------------------------------------------------------------------------------------------ writing


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "deep" / "a.txt"
    write_text(file, "old")
    with pytest.raises(RuntimeError), atomic_path(file) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == file.parent
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old" and names(file.parent) == ["a.txt"]


def test_a_full_disk_is_one_line_and_the_old_file_whole(tmp_path, monkeypatch):
    file = tmp_path / "a.bin"
    write_bytes(file, b"old")

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(HardspikeError, match=r"a\.bin: cannot be written \(No space left on device\)$"):
        write_bytes(file, b"new")
    assert file.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


def test_text_without_an_encoding_is_escaped(tmp_path):
    write_text(tmp_path / "a.json", "näme \udcff\n")
    assert (tmp_path / "a.json").read_bytes() == "näme \\udcff\n".encode()


def test_links_are_written_through(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.json").write_text("precious")
    for link, target in (("one", "there/a.json"), ("two", "one"), ("dangling", "there/new.json")):
        (tmp_path / link).symlink_to(target)
        write_text(tmp_path / link, link)
        assert (tmp_path / link).is_symlink() and (tmp_path / link).read_text() == link
    assert (tmp_path / "there" / "a.json").read_text() == "two"
    assert names(tmp_path / "there") == ["a.json", "new.json"]


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path / "link", "a pipe"), (Path("/dev/null"), "a device"),
                       (Path("/dev/full"), "a device"), (tmp_path, "a folder"), (tmp_path / "loop", "links")):
        with pytest.raises(HardspikeError, match=kind) as raised:
            write_text(path, "x")
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode) and names(tmp_path) == ["link", "loop", "pipe"]


def test_permissions_stay_and_new_files_follow_the_umask(tmp_path):
    file = tmp_path / "a"
    umask = os.umask(0o027)
    try:
        write_text(file, "new")
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        for mode in (0o600, 0o444):
            file.chmod(mode)
            write_text(file, "again")
            assert stat.S_IMODE(file.stat().st_mode) == mode
    finally:
        os.umask(umask)


@pytest.mark.parametrize("name", ["x" * 255, "x" * 250 + ".nir", "\u00e9" * 120 + ".nir", "x." + "y" * 240])
def test_names_as_long_as_a_file_system_takes_them(name, tmp_path):
    with atomic_path(tmp_path / name) as temporary:
        assert len(os.fsencode(temporary.name)) <= 255
        temporary.write_text("x")
    assert names(tmp_path) == [name]


@pytest.mark.parametrize(("name", "reason"), [("x" * 300 + ".nir", "File name too long"), ("a\0b", "null (byte|char)"),
                                              ("file/below", "exists|Not a directory")])
def test_impossible_names_are_one_line(name, reason, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(HardspikeError, match=rf"cannot be written \(.*({reason}).*choose another place"):
        write_text(tmp_path / name, "x")


@pytest.mark.parametrize("mode", [0o600, 0o500, 0o000])  # no way into it, not writable, nothing
def test_a_folder_without_permissions_is_one_line(mode, tmp_path, unprivileged):
    closed = tmp_path / "closed"
    if os.geteuid() == 65534:  # the temporary folder belongs to root
        closed = Path("/tmp") / f"hardspike-{os.getpid()}-{mode:o}"
    closed.mkdir()
    closed.chmod(mode)
    try:
        for path in (closed / "a.json", closed / "deeper" / "a.json"):
            with pytest.raises(HardspikeError, match=r"cannot be written \(Permission denied\); choose another place"):
                write_text(path, "x")
    finally:
        closed.chmod(0o700)
        closed.rmdir()


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path, dead):
    host = files.host()
    theirs = f".best-{dead}-{'0' * 6 if host != '0' * 6 else '1' * 6}01234567.tmp.pt"
    kept = [f".best-{os.getpid()}-{host}01234567.tmp.pt", theirs, f".best-{dead}.tmp.pt", ".best-x.tmp", "best-1.tmp"]
    for name in [*kept, f".best-{dead}-{host}01234567.tmp.pt", f".a-b\nc-{dead}-{host}89abcdef.tmp"]:
        (tmp_path / name).write_text("x")
    write_text(tmp_path / "other.json", "x")
    assert names(tmp_path) == sorted([*kept, "other.json"])


def test_the_temporary_of_a_process_killed_while_it_writes_goes_with_the_next(tmp_path):
    code = ("import os, signal, hardspike\nwith hardspike.atomic_path('best.pt') as temporary:\n"
            "    temporary.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)")
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment).returncode == -9
    assert len(names(tmp_path)) == 1
    write_text(tmp_path / "best.pt", "whole")
    assert names(tmp_path) == ["best.pt"]


def test_a_process_that_waits_for_its_parent_is_dead():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert files.alive(os.getpid()) and not files.alive(child.pid)
    child.wait()


def test_no_home_is_one_line(monkeypatch):
    monkeypatch.delenv("HARDSPIKE_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without an entry and without $HOME
    with pytest.raises(HardspikeError, match="set HARDSPIKE_CACHE to a folder"):
        cache_folder()
    monkeypatch.setenv("HARDSPIKE_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")


# ---------------------------------------------------------------------------------------------------- locks


def test_a_folder_has_one_writer(tmp_path):
    run = tmp_path / "runs" / "a"
    with run_lock(run):
        said = json.loads((run / ".lock").read_text())
        assert said["pid"] == os.getpid() and said["host"] and set(said) == {"pid", "started", "host", "boot"}
        with pytest.raises(HardspikeError, match=rf"runs/a: process {os.getpid()} on .* choose another"), run_lock(run):
            pass
        with run_lock(tmp_path / "runs" / "b"):
            pass
    assert names(run) == []
    with run_lock(run):
        pass


def test_the_lock_is_given_back_when_the_block_fails(tmp_path):
    with pytest.raises(RuntimeError), run_lock(tmp_path):
        raise RuntimeError
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("flock", [True, False])
def test_the_lock_of_a_dead_process_is_taken_over(flock, tmp_path, dead, monkeypatch):
    if not flock:
        monkeypatch.setattr(lock, "_flock", lambda descriptor: None)
    here = lock.ourselves()
    for owner in ({**here, "pid": dead}, {**here, "boot": "an earlier one"}, {**here, "started": 1}, {}, {"pid": "x"}):
        (tmp_path / ".lock").write_text(json.dumps(owner))
        with run_lock(tmp_path):
            assert json.loads((tmp_path / ".lock").read_text()) == here
    (tmp_path / ".lock").write_bytes(b"\xff[[[")
    with run_lock(tmp_path):
        pass
    assert names(tmp_path) == []


def test_without_flock_a_living_owner_or_one_elsewhere_is_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_flock", lambda descriptor: None)
    for owner in (lock.ourselves(), {**lock.ourselves(), "host": "elsewhere"}):
        (tmp_path / ".lock").write_text(json.dumps(owner))
        with pytest.raises(HardspikeError, match=rf"process {owner['pid']} on {owner['host']}.* remove"), \
                run_lock(tmp_path):
            pass


def test_a_lock_that_its_owner_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """Opened while another held it, locked when that one had removed it: a third would make a new file."""
    calls = []

    def meanwhile(descriptor, real=lock._flock):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / ".lock").unlink()
        return real(descriptor)

    monkeypatch.setattr(lock, "_flock", meanwhile)
    with run_lock(tmp_path):
        assert len(calls) == 2 and (tmp_path / ".lock").exists()


def test_a_lock_is_no_link_to_somewhere_else(tmp_path):
    (tmp_path / "precious").write_text("x")
    (tmp_path / ".lock").symlink_to("precious")
    with pytest.raises(HardspikeError, match="cannot be locked"), run_lock(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "x"


# ------------------------------------------------------------------------------- before the work whose result it is


@pytest.mark.parametrize(("name", "folder", "reason"), [
    ("pipe", False, "is a pipe"), ("to_pipe", False, "is a pipe"), ("folder", False, "is a folder"),
    ("/dev/full", False, "is a device"), ("/proc/x", False, "cannot be written"),
    ("file/below", False, "Not a directory|File exists"), ("x" * 300, False, "File name too long"),
    ("new/" + "x" * 300 + "/y", False, "File name too long"), ("a/" * 3000 + "b", False, "File name too long"),
    ("a\0b", False, "null (byte|char)"), ("loop", False, "symbolic links"),
    ("nowhere", False, "there is no .*missing; make"),
    ("file", True, "is a file; give the name of a folder"), ("pipe", True, "is a pipe"),
    ("file/below", True, "Not a directory"), ("x" * 300, True, "File name too long"),
    ("nowhere", True, "there is no .*missing/a; make"), ("loop", True, "symbolic links"),
    ("/proc/x/y", True, "cannot be written"),
])
def test_what_cannot_be_written_is_known_before_and_leaves_nothing(name, folder, reason, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for link, target in (("to_pipe", "pipe"), ("loop", "loop"), ("nowhere", "missing/a")):
        (tmp_path / link).symlink_to(target)
    before = names(tmp_path)
    with pytest.raises(HardspikeError, match=reason):
        require_writable(tmp_path / name, folder)
    if not folder:
        with pytest.raises(HardspikeError, match=reason):
            write_text(tmp_path / name, "x")
    assert names(tmp_path) == before and names(tmp_path / "folder") == []


def test_what_can_be_written_is_left_as_it_is(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("new")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to("folder")
    before = names(tmp_path)
    for name in ("file", "link", "a/b/c", "x" * 255, "folder/a", "to_folder/a"):
        require_writable(tmp_path / name)
    for name in ("folder", "to_folder", "a/b/c"):
        require_writable(tmp_path / name, folder=True)
    assert names(tmp_path) == before and (tmp_path / "file").read_text() == "old" and names(tmp_path / "folder") == []


def test_a_folder_without_permissions_is_known_before(unprivileged):
    home = pwd.getpwuid(0).pw_dir  # which others may not even look into
    for place in (f"{home}/x.json", "/usr/x.json", "/usr/new/x.json"):
        with pytest.raises(HardspikeError, match="Permission denied"):
            require_writable(place)


def test_scratch_folders_of_killed_processes_go_before_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = ("import os; from hardspike import scratch_folder\n"
              "with scratch_folder() as folder: (folder / 'x').write_text('x'); os.kill(os.getpid(), 9)")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == -9
    (left,) = tmp_path.iterdir()
    ours, link = tmp_path / "hardspike-mine", tmp_path / left.name.replace("hardspike-", "hardspike-4194304")
    ours.mkdir()
    link.symlink_to(ours)
    files._sweep_scratch.cache_clear()
    with files.scratch_folder() as folder:
        assert folder.parent == tmp_path and stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert sorted(tmp_path.iterdir()) == sorted([folder, ours, link])
    assert not folder.exists()


def test_a_scratch_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(HardspikeError, match="set TMPDIR to another place"), files.scratch_folder():
        pass
