"""Build the sdist and the wheel and try the wheel as its users do: `make dist`.

A fresh environment, an empty folder beside files that are called as our packages are; a network is trained by a shipped
recipe, exported, and reported on. Some minutes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = (["--version"], ["targets", "list"], ["export", "zoo", "list"],
            ["fit", "--config", "digits_hard", "--epochs", "2", "--out", "r"],
            ["export", "nir", "r"], ["export", "c", "r", "-o", "model.c"], ["eval", "report", "r"],
            ["eval", "energy", "r"])
MADE = ("r/best.pt", "r/best.nir", "model.c", "r/report.html")
SHADOWS = ("trainer", "export", "targets", "eval")


def called(*command: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    """Run a command, its output seen.

    Raises:
        SystemExit: it failed.
    """
    print("$", *command, flush=True)
    done = subprocess.run([str(word) for word in command], cwd=cwd, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"dist: exit status {done.returncode}")


def build(folder: Path) -> Path:
    """Both distributions, the wheel made from the sdist, so that it lacks what the sdist lacks; the wheel."""
    shutil.rmtree(folder, ignore_errors=True)
    called(sys.executable, "-m", "build", "--outdir", folder)
    wheel, = folder.glob("*.whl")
    return wheel


def tried(wheel: Path) -> None:
    """Install it into an environment of its own and run COMMANDS there.

    Raises:
        SystemExit: a command failed, or a file of MADE is missing.
    """
    with tempfile.TemporaryDirectory() as place:
        env, work = Path(place) / "env", Path(place) / "work"
        called(sys.executable, "-m", "venv", env)
        pip = [env / "bin" / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
        called(*pip, "torch")
        called(*pip, wheel)
        work.mkdir()
        for name in SHADOWS:
            (work / f"{name}.py").write_text("raise SystemExit('a file of the working folder was run')\n")
        for command in COMMANDS:
            called(env / "bin" / "hardspike", *command, cwd=work, HARDSPIKE_CACHE=str(Path(place) / "cache"))
        if missing := [file for file in MADE if not (work / file).exists()]:
            raise SystemExit(f"dist: not written: {', '.join(missing)}")


if __name__ == "__main__":
    tried(build(ROOT / "dist"))
