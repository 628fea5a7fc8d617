"""Compiled libraries: what is damaged is made anew, what somebody else could have written is not loaded, and a compiler
ends with the process that started it."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hardspike import HardspikeError, libraries
from tests.conftest import compiled
from trainer import native

ROOT = Path(__file__).parents[1]
COMPILE = "from trainer import native; print(native.library('layers/norm_native')[1])"
LOAD = """
import shutil, sys
from hardspike import HardspikeError
from hardspike import libraries
try:
    libraries.loaded("library", lambda out: shutil.copyfile(sys.argv[1], out))
    print("loaded")
except HardspikeError as error:
    print(error)
"""


@pytest.fixture(scope="session")
def good() -> Path:
    """A library that was compiled."""
    compiled("layers/norm_native")
    return Path(native.library("layers/norm_native")[1])


@pytest.fixture
def cache(monkeypatch, tmp_path, good):
    """The library in a cache of the test's own."""
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path))
    assert load(good) == "loaded"
    return tmp_path / "kernels" / "library.so"


def load(good: Path, **environment) -> str:
    """What a process says that loads the library, or compiles it: copies `good`."""
    done = subprocess.run([sys.executable, "-c", LOAD, str(good)], cwd=ROOT, env={**os.environ, **environment},
                          text=True, capture_output=True)
    assert done.returncode == 0, done
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("damage", [
    lambda library: b"", lambda library: library[:1000], lambda library: library[:len(library) * 9 // 10],
    lambda library: library[:4000] + bytes(5000) + library[9000:], lambda library: b"no library",
    lambda library: library + b"\0"])
def test_a_damaged_library_is_made_anew(cache, good, damage):
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))
    assert load(good) == "loaded"
    assert cache.read_bytes() == whole


@pytest.mark.parametrize("checksum", [None, b"", b"0" * 64, b"\xff" * 200])
def test_a_library_without_its_checksum_is_made_anew(cache, good, checksum):
    file = libraries._checksum(cache)
    right = file.read_bytes()
    if checksum is None:
        file.unlink()
    else:
        file.write_bytes(checksum)
    before = cache.stat().st_ino
    assert load(good) == "loaded"
    assert file.read_bytes() == right and cache.stat().st_ino != before


def test_library_and_folder_are_ours_alone_whatever_the_umask(cache, good, tmp_path):
    umask = os.umask(0)
    try:
        assert load(good, HARDSPIKE_CACHE=str(tmp_path / "other")) == "loaded"
    finally:
        os.umask(umask)
    folder = tmp_path / "other" / "kernels"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) & 0o022 for file in folder.glob("*.so")} == {0}


def test_a_folder_that_others_may_read_is_closed(cache, good):
    cache.parent.chmod(0o755)
    assert load(good) == "loaded"
    assert stat.S_IMODE(cache.parent.stat().st_mode) == 0o700


def _open_folder(library):
    library.parent.chmod(0o1777)


def _open_library(library):
    library.chmod(0o666)


def _linked_library(library):
    library.rename(library.with_suffix(".kept"))
    library.symlink_to(library.with_suffix(".kept"))


def _linked_folder(library):
    library.parent.rename(library.parent.with_name("kept"))
    library.parent.symlink_to(library.parent.with_name("kept"))


def _folder_as_library(library):
    library.unlink()
    library.mkdir()


def _pipe_as_checksum(library):
    libraries._checksum(library).unlink()
    os.mkfifo(libraries._checksum(library))


def _foreign_library(library):
    if os.getuid():
        pytest.skip("giving a file to another user takes root")
    os.chown(library, 12345, 12345)


@pytest.mark.parametrize(("plant", "way_out"), [
    (_open_folder, "chmod 700"), (_open_library, "remove it"), (_linked_library, "remove it"),
    (_linked_folder, "remove it"), (_folder_as_library, "remove it"), (_pipe_as_checksum, "remove it"),
    (_foreign_library, "remove it")])
def test_what_others_could_have_written_is_not_loaded(cache, good, plant, way_out):
    plant(cache)
    said = load(good)
    assert not said.startswith("loaded")
    assert said.count("warning: ") == 1 and str(cache.parent) in said and way_out in said and "HARDSPIKE_CACHE" in said


def test_a_folder_of_another_user_is_left_alone(cache, good, tmp_path):
    if os.getuid():
        pytest.skip("giving a folder to another user takes root")
    cache.write_bytes(b"planted")
    os.chown(cache.parent, 12345, 12345)
    assert load(good) == "loaded"
    assert cache.read_bytes() == b"planted" and list((tmp_path / f"kernels-{os.getuid()}").glob("*.so"))


SLOW = """#!/bin/sh
[ "$1" = --version ] && exit 0
for out; do :; done
echo half > "$out"
sleep 300 &
echo $! > "$MARK"
wait
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_compiler_ends_with_its_process(monkeypatch, tmp_path, number):
    compiler, mark = tmp_path / "slow", tmp_path / "mark"
    compiler.write_text(SLOW)
    compiler.chmod(0o755)
    process = subprocess.Popen([sys.executable, "-c", COMPILE], cwd=ROOT, stderr=subprocess.DEVNULL, env={
        **os.environ, "HARDSPIKE_CACHE": str(tmp_path / "cache"), "CXX": str(compiler), "MARK": str(mark)})
    _wait_for(lambda: mark.exists() and mark.read_text().strip())
    child = int(mark.read_text())
    process.send_signal(number)
    process.wait(20)
    _wait_for(lambda: not Path(f"/proc/{child}").exists())
    _wait_for(lambda: not list((tmp_path / "cache" / "kernels").iterdir()))


def _wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_compiler_that_hangs_is_ended(tmp_path):
    compiler = tmp_path / "slow"
    compiler.write_text(SLOW)
    compiler.chmod(0o755)
    with pytest.raises(subprocess.TimeoutExpired):
        libraries.run(["env", f"MARK={tmp_path / 'mark'}", str(compiler), str(tmp_path / "out")],
                          tmp_path / "out", timeout=1)
    _wait_for(lambda: not Path(f"/proc/{int((tmp_path / 'mark').read_text())}").exists())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compiler", ["'", " ", "/etc/passwd", "false", "absent"])
def test_a_compiler_that_is_none_is_a_reason(monkeypatch, tmp_path, compiler):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path))
    native.library.cache_clear()
    try:
        found, reason = native.library("layers/norm_native")
    finally:
        native.library.cache_clear()
    assert found is None and reason and "\n" not in reason


def test_what_a_compiler_says_may_be_no_text(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        libraries.run(["sh", "-c", r"printf '\377\376' >&2; exit 3"])
    assert caught.value.returncode == 3 and caught.value.stderr


def test_a_broken_disk_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path))
    monkeypatch.setattr(libraries, "_verified", lambda path: None)
    with pytest.raises(HardspikeError, match=r"x\.so: is not what was compiled"):
        libraries.loaded("x", lambda path: path.write_bytes(b"x"))
