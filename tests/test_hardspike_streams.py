"""A process's streams and signals; what it imports."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hardspike
from hardspike import run
from hardspike.arguments import arguments

ROOT = Path(__file__).parents[1]
PACKAGES = ("trainer", "export", "targets", "eval")


def process(code: str, *, shell: str = "", **environment):
    """Status, output and errors of Python code that calls `run`; `shell` goes behind the command."""
    command = f'"$PYTHON" -c "$CODE" {shell}'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, env={**os.environ, "PYTHON": sys.executable, "CODE": code, "PYTHONUNBUFFERED": "",
                               **environment})
    return done.returncode, done.stdout, done.stderr


TABLE = ("import sys, hardspike\n"
         "def show(): hardspike.print_table([{'n\u00e4me': 'gr\u00f6\u00dfe'}] * %d)\n"
         "sys.exit(hardspike.run('x', {'show': show}, ['show']))")


CLOSED = "| (exec 0<&-; sleep 0.5)"
"""Into a pipe whose other end is closed before anything is printed."""


@pytest.mark.parametrize(("rows", "shell", "status", "said"), [
    (1, "> /dev/full", 1, "standard output cannot be written (No space left on device)"),
    (5000, "> /dev/full", 1, "standard output cannot be written (No space left on device)"),
    (1, ">&-", 1, "standard output cannot be written (Bad file descriptor)"),
    (1, "2>&- > /dev/full", 1, ""),
    (1, CLOSED, 141, ""),  # as a shell says it of its own tools; who closed the pipe knows
    (20_000, "| head -1", 141, ""),
])
def test_lost_output_is_a_status_and_at_most_a_line(rows, shell, status, said):
    found, _, error = process(TABLE % rows, shell=shell)
    assert found == status and said in error and error.count("\n") == bool(said)


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize(("shell", "status"), [(CLOSED, 141), ("> /dev/full", 1), (">&-", 1)])
def test_a_command_whose_output_is_lost_writes_its_files_to_the_end(shell, status, buffered, tmp_path):
    code = ("import sys, hardspike\n"
            "def show():\n"
            "    for i in range(20):\n        print('x' * 1000, flush=True)\n"
            f"        hardspike.write_text({str(tmp_path / 'f')!r}, str(i))\n"
            "sys.exit(hardspike.run('x', {'show': show}, ['show']))")
    assert process(code, shell=shell, PYTHONUNBUFFERED=buffered)[0] == status
    assert (tmp_path / "f").read_text() == "19"


def test_a_check_that_found_something_is_1_whoever_reads_it():
    code = ("import sys, hardspike\ndef show():\n    print('x' * 100)\n    return False\n"
            "sys.exit(hardspike.run('x', {'show': show}, ['show']))")
    assert process(code, shell=CLOSED)[0] == 1


ANSWER = ("import sys, hardspike\n"
          "def show(json: hardspike.OutText | None = None, csv: hardspike.OutText | None = None):\n"
          "    print('before')\n    hardspike.print_table([{'a': 1.5}], 'title', json, csv_file=csv)\n"
          "    print('after')\n"
          "sys.exit(hardspike.run('x', {'show': show}, ['show', '--%s', '-']))")


def test_an_answer_on_standard_output_is_alone_there():
    status, out, error = process(ANSWER % "json")
    assert status == 0 and json.loads(out) == {"title": "title", "rows": [{"a": 1.5}]}
    assert error.startswith("before\ntitle") and error.endswith("after\n")
    status, out, error = process(ANSWER % "csv", shell="2>&-")
    assert (status, out, error) == (0, "a\n1.5\n", "")
    assert process(ANSWER % "json", shell=CLOSED)[0] == 141
    assert "No space left" in process(ANSWER % "json", shell="> /dev/full")[2]


def test_what_an_encoding_lacks_is_escaped():
    status, out, error = process(TABLE % 1, PYTHONIOENCODING="ascii")
    assert (status, error) == (0, "") and "gr\\xf6\\xdfe" in out and out.isascii()


def test_a_closed_stream_is_not_given_to_the_next_file(tmp_path):
    """Libraries print to number 1, whatever Python thinks of it."""
    code = ("import os, sys, hardspike\n"
            f"def show():\n    with open({str(tmp_path / 'f')!r}, 'w'): os.write(1, b'noise')\n"
            "sys.exit(hardspike.run('x', {'show': show}, ['show']))")
    assert process(code, shell=">&-")[0] == 0 and (tmp_path / "f").read_bytes() == b""


def test_streams_are_afterwards_as_they_were():
    before = sys.stdout.errors, signal.getsignal(signal.SIGINT), sys.unraisablehook
    assert run("tests", {"nothing": lambda: None}, ["nothing"]) == 0
    assert (sys.stdout.errors, signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


@pytest.mark.parametrize("moment", ["import", "callback", "run", "text", "exit"])
def test_an_interrupt_is_quiet_at_any_moment(moment, tmp_path):
    """While a command's module is imported (libraries turn it into other errors), while a callback runs (whose errors
    Python prints and drops), while the command runs (also within a text, where Python would then end by the signal),
    and while the process ends."""
    kill = "os.kill(os.getpid(), signal.SIGINT)"
    (tmp_path / "slow.py").write_text("import atexit, os, signal\n" + {
        "import": f"try:\n    {kill}\nexcept BaseException: raise ImportError('no such symbol')\n",
        "callback": f"class Last:\n    def __del__(self): {kill}\ndef command():\n    Last()\n    return True\n",
        "run": f"def command():\n    try:\n        {kill}\n    except BaseException: raise ImportError('half')\n",
        "text": f"def command(): exec({kill!r})\n",
        "exit": f"atexit.register(lambda: {kill})\ndef command(): pass\n"}[moment])
    (tmp_path / "x.py").write_text("import sys, hardspike\n"
                                   "sys.exit(hardspike.run('x', {'slow': ('slow:command', 'Slow.')}))")
    done = subprocess.run([sys.executable, "-m", "x", "slow"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "python -m x: interrupted\n")


def test_print_table_is_not_for_the_process_to_end():
    """rich leaves the process where a pipe is closed: the command's own way out would not run."""
    code = ("import os, sys, hardspike\nread, write = os.pipe()\nos.close(read)\nos.dup2(write, 1)\n"
            "def show():\n    hardspike.print_table([{'a': 1}] * 5000)\n    sys.stderr.write('on')\n"
            "sys.exit(hardspike.run('x', {'show': show}, ['show']))")
    assert process(code) == (141, "", "on")


def test_help_version_and_unknown_commands_import_nothing_heavy():
    """All four packages in one process, whose imports at its end are looked at."""
    code = f"""
import contextlib, importlib, sys, time
import hardspike
began = time.perf_counter()
for package in {PACKAGES}:
    commands = importlib.import_module(package + ".__main__").COMMANDS
    for words in (["--help"], ["--version"], ["nonsense"], ["--nonsense"], []):
        with contextlib.suppress(SystemExit):
            hardspike.run(package, commands, words)
seconds = time.perf_counter() - began
heavy = sorted({{"torch", "numpy", "rich", "yaml", "matplotlib", "nir", "h5py"}} & set(sys.modules))
print("HEAVY", heavy, seconds < 0.5)
"""
    status, out, error = process(code)
    assert status == 0 and out.splitlines()[-1] == "HEAVY [] True" and error.count("\n") == 3 * len(PACKAGES)
    assert "Train a network and keep the weights" in out and out.count("hardspike " + hardspike.__version__) == 4


@pytest.mark.parametrize("package", PACKAGES)
def test_the_commands_of_the_packages_are_there(package):
    """Each is found by its name, its summary is what its docstring begins with or shorter, its help can be made."""
    import importlib

    commands = importlib.import_module(f"{package}.__main__").COMMANDS
    for name, (where, summary) in commands.items():
        module, function = where.split(":")
        function = getattr(importlib.import_module(module), function)
        assert summary.endswith(".") and len(summary) < 110 and "\n" not in summary
        assert arguments(function, name, ["--help"]).startswith(f"usage: {name} ")


@pytest.mark.parametrize("words", [["targets", "check", "nothing.nir"], ["export", "nir", "nothing.pt"],
                                   ["eval", "accuracy", "nothing.pt"], ["trainer", "fit", "--epochs", "0"]])
def test_modules_in_the_working_folder_are_not_imported(words, tmp_path):
    """`python -m` has it first on its path: whatever came with a model would run."""
    for name in ("torch", "numpy", "nir", "rich", "yaml", "argparse", "json", "dataclasses"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}.ran', 'w')\nraise SystemExit(77)\n")
    done = subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.glob("*.ran"))


def test_python_m_of_a_package():
    done = subprocess.run([sys.executable, "-m", "targets", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Run a NIR graph on a target" in done.stdout and done.stderr == ""


def test_the_version_is_the_packages():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "hardspike.__version__"
    assert len(hardspike.__version__.split(".")) == 3
