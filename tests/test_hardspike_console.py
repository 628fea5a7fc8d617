"""The one program `hardspike`: its commands, names of shipped files, what it says and to whom."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hardspike import HardspikeError, log, logger, run, shipped
from hardspike.console import PACKAGES, main

ROOT = Path(__file__).parents[1]


def console(*words: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess:
    """The program in a process and folder of its own; `path` comes before ours on PYTHONPATH."""
    places = os.pathsep.join(str(place) for place in (path, ROOT) if place)
    return subprocess.run([sys.executable, "-m", "hardspike", *words], cwd=cwd, capture_output=True, text=True,
                          timeout=120, env={**os.environ, "PYTHONPATH": places})


def test_files_of_our_packages_names_are_not_run(tmp_path):
    """Neither from the working folder, which `python -m` searches first, nor from PYTHONPATH."""
    for package in ("trainer", *PACKAGES):
        (tmp_path / f"{package}.py").write_text("raise SystemExit('not ours')")
    for words, said in ((["eval", "accuracy", "no.pt"], "no.pt: no such file or folder"),
                        (["targets", "list"], "loihi2"), (["fit", "--help"], "usage: hardspike fit"),
                        (["export", "nir", "no.pt"], "no.pt")):
        found = console(*words, cwd=tmp_path, path=tmp_path)
        assert said in found.stdout + found.stderr and "not ours" not in found.stdout + found.stderr


def test_help_lists_the_commands_of_all_packages(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in ("fit", "data", *PACKAGES)) and "python -m" not in said
    assert main(["eval", "--help"]) == 0
    assert "usage: hardspike eval COMMAND" in capsys.readouterr().out


def test_commands_are_proposed_as_the_program_has_them():
    """Wherever a text may be printed, docstrings included: `python -m eval` would run a user's own eval.py."""
    found = [str(file) for package in ("trainer", *PACKAGES) for file in (ROOT / package).rglob("*.py")
             if re.search(r"python -m (trainer|export|eval|targets)", file.read_text())]
    assert found == []


@pytest.mark.parametrize("words, said", [(["evil"], "did you mean 'eval'"), ([], "a command is missing"),
                                         (["eval", "acuracy"], "did you mean 'accuracy'"),
                                         (["fit", "--log-level", "loud"], "log-level 'loud' is unknown")])
def test_words_that_do_not_fit(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_a_name_without_a_path_is_a_shipped_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep.yaml").write_text("a: 1")
    assert shipped("deep", tmp_path) == tmp_path / "deep.yaml"
    assert shipped("deep.yaml", tmp_path / "elsewhere") == Path("deep.yaml")  # a path stays one, read or refused later
    (tmp_path / "deep").write_text("a: 2")
    assert shipped("deep", tmp_path) == Path("deep")  # what lies here comes first
    with pytest.raises(HardspikeError, match="did you mean 'deep'"):
        shipped("deeper", tmp_path)


def test_fit_takes_a_shipped_recipe_by_name(capsys):
    assert main(["fit", "--config", "digits_hard", "--print_config"]) == 0
    assert "method: hard" in capsys.readouterr().out


def _speaking() -> None:
    """Say three things."""
    logger("trainer.run").debug("a detail")
    logger("trainer.run").info("epoch 1 of 2 at 50 %")
    logger("hardspike.files").warning("file\x1b[2J: damaged")


@pytest.mark.parametrize("words, out, err", [
    ([], "epoch 1 of 2 at 50 %\n", "file\\x1b[2J: damaged\n"),
    (["--quiet"], "", "file\\x1b[2J: damaged\n"),
    (["--log-level", "debug"], "a detail\nepoch 1 of 2 at 50 %\n", "file\\x1b[2J: damaged\n"),
    (["--log_level=error"], "", "")])
def test_what_is_said_and_where(words, out, err, capsys):
    assert run("test", {"speak": _speaking}, ["speak", *words]) == 0
    assert capsys.readouterr() == (out, err)
    assert log.quiet() == (bool(words) and words[-1] != "debug")


def test_the_library_is_silent_and_heard_by_whoever_listens(capsys, caplog):
    log.ROOT.removeHandler(log._lines)
    with caplog.at_level(logging.INFO, "hardspike"):
        _speaking()
    assert capsys.readouterr() == ("", "")
    assert [record.name for record in caplog.records] == ["hardspike.trainer.run", "hardspike.files"]


def test_completion_knows_every_command_and_its_options():
    from hardspike.completion import tree
    commands = tree()._subparsers._group_actions[0].choices
    assert {"fit", "data", "completion", *PACKAGES} == set(commands)
    below = commands["eval"]._subparsers._group_actions[0].choices
    options = {option for action in below["report"]._actions for option in action.option_strings}
    assert {"--samples", "--bits", "--out"} <= options
    assert "--network.layers" in {option for action in commands["fit"]._actions for option in action.option_strings}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands(shell, capsys):
    pytest.importorskip("shtab", reason="shtab is not installed: pip install 'hardspike[completion]'")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "report" in script and "--network.layers" in script
    if shell == "bash":
        asked = f'{script}\nCOMP_WORDS=(hardspike eval rep); COMP_CWORD=2; _shtab_hardspike; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60)
        assert "report" in done.stdout, done.stderr


@pytest.mark.parametrize(("words", "said"), [(["fish"], "shell 'fish' is unknown"),
                                             (["bash"], "pip install 'hardspike[completion]'")])
def test_what_completion_cannot_do_is_said(words, said, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", *words]) == 2
    assert said in capsys.readouterr().err
