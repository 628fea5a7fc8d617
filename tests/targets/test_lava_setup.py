"""Making the Lava environment, with an interpreter that only pretends; the real one is made by the other Lava tests."""

import subprocess
import sys
import time

import pytest

from hardspike import HardspikeError
from targets.lava import setup as lava

FAKE = """#!/bin/sh
case "$*" in
    -c*) echo "3 10";;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";;
    "-m pip "*) echo pip >> "$(dirname "$0")/../../pip"
        if [ -n "$OFFLINE" ]; then echo "ERROR: No matching distribution found for lava-nc"; exit 1; fi;;
    *check) echo '{"python": "3.10.1", "lava-nc": "0.10.0"}';;
esac
"""
SHIM = "#!/bin/sh\necho 'pyenv: python3.10: command not found' >&2\nexit 127\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose first python3.10 is a pyenv shim that does not run; the second one does."""
    folders = [tmp_path / "shims", tmp_path / "bin"]
    for folder, content in zip(folders, (SHIM, FAKE), strict=True):
        folder.mkdir()
        (folder / "python3.10").write_text(content)
        (folder / "python3.10").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folders[0]}:{folders[1]}:/usr/bin:/bin")
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    return tmp_path


def test_a_shim_that_does_not_run_is_skipped(machine):
    environment = lava.setup()
    assert environment.base == str(machine / "bin" / "python3.10")
    assert environment.versions["python"] == "3.10.1" and not environment.patched
    assert lava.find() == environment


def test_a_second_call_installs_nothing(machine):
    first = lava.setup()
    assert lava.setup() == first
    assert (machine / "cache" / "lava" / "pip").read_text().split() == ["pip"]


def test_an_interrupted_setup_counts_as_none_and_is_made_anew(machine, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as during:
        during.setattr(lava, "_install", interrupt)
        with pytest.raises(KeyboardInterrupt):
            lava.setup()
    assert lava.find() is None
    assert lava.find() != lava.setup()
    assert lava.find() is not None


def test_new_requirements_or_another_interpreter_mean_a_new_environment(machine, monkeypatch):
    lava.setup()
    other = machine / "other"
    other.write_text(FAKE)
    other.chmod(0o755)
    assert lava.setup(other).base == str(other)
    monkeypatch.setattr(lava, "_fingerprint", lambda: "newer")
    assert lava.find() is None


def test_failures_are_one_line_with_the_cause_and_the_log(machine, monkeypatch):
    monkeypatch.setenv("OFFLINE", "1")
    with pytest.raises(HardspikeError, match=r"No matching distribution found for lava-nc.*network.*log: .*setup.log"):
        lava.setup()
    with pytest.raises(HardspikeError, match=r"shims/python3.10: exit status 127 \(pyenv: .*Lava needs Python 3.10"):
        lava.setup(machine / "shims" / "python3.10")
    monkeypatch.setattr(lava, "_PATCHABLE", ())
    monkeypatch.setattr(lava, "_download", lambda *_: "uv's download: no network")
    (machine / "bin" / "python3.10").unlink()
    with pytest.raises(HardspikeError) as caught:
        lava.setup()
    for part in ("shims/python3.10: exit status 127", "uv's download: no network", sys.executable, "--python PATH"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.lava
def test_a_killed_setup_recovers(tmp_path):
    code = f"from pathlib import Path; from targets.lava.setup import setup; setup(folder=Path({str(tmp_path)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not list(tmp_path.glob("*/lib/*/site-packages/numpy")) and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert lava.find(tmp_path) is None
    assert lava.setup(folder=tmp_path).versions["lava-nc"] == "0.10.0"
