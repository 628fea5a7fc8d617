"""`fit --track`: what a tracker is told, through a module that stands in for its library; what is said without it."""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from hardspike import HardspikeError, UsageError, run
from trainer.__main__ import COMMANDS
from trainer.commands import fit
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.networks import NetworkConfig
from trainer.track import tracked


class Library(ModuleType):
    """mlflow and wandb at once: notes what is called."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []
        for function in ("start_run", "log_params", "log_metrics", "end_run"):
            setattr(self, function, lambda *args, _name=function, **options: self.calls.append((_name, args, options)))

    def init(self, **options):
        self.calls.append(("init", (), options))
        return SimpleNamespace(log=lambda *args, **options: self.calls.append(("log", args, options)),
                               finish=lambda **options: self.calls.append(("finish", (), options)))


@pytest.fixture(params=["mlflow", "wandb"])
def library(request, monkeypatch):
    found = Library(request.param)
    monkeypatch.setitem(sys.modules, request.param, found)
    return found


def config(out, **options):
    return FitConfig(out=out, epochs=2, batch_size=64, method="hard", data=DataConfig(steps=2),
                     network=NetworkConfig(layers="8"), **options)


def test_a_tracker_is_told_the_configuration_and_every_epoch(library, tmp_path):
    fit(config(tmp_path / "mine"), track=library.__name__)
    begin, *told, end = library.calls
    if library.__name__ == "mlflow":
        params, told = told[0][1][0], told[1:]
        assert begin[2] == {"run_name": "mine"} and params["network.layers"] == "8" and end[2]["status"] == "FINISHED"
    else:
        assert begin[2]["name"] == "mine" and begin[2]["config"]["network.layers"] == "8"
        assert end[2] == {"exit_code": 0}
    assert [options["step"] for _, _, options in told] == [1, 2]
    assert all("hard_accuracy" in args[0] for _, args, _ in told)


def test_without_the_option_no_library_is_touched(library, tmp_path):
    fit(config(tmp_path / "mine"))
    assert library.calls == []


def test_a_run_that_fails_is_told_as_failed(library, tmp_path):
    with pytest.raises(ZeroDivisionError), tracked(library.__name__, config(tmp_path), {}):
        raise ZeroDivisionError
    assert {"mlflow": {"status": "FAILED"}, "wandb": {"exit_code": 1}}[library.__name__] == library.calls[-1][2]


def test_mlflow_gives_up_soon_unless_the_environment_says_otherwise(monkeypatch, tmp_path):
    library = Library("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", library)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "")  # so that the test leaves nothing behind
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    with tracked("mlflow", config(tmp_path), {}):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "20"


def test_a_server_that_is_not_there_is_one_line(library, tmp_path):
    def refuse(**_):
        raise ConnectionError("no\nserver")

    library.start_run = library.init = refuse
    with pytest.raises(HardspikeError, match=f"track {library.__name__}: .*leave --track out"), \
            tracked(library.__name__, config(tmp_path), {}):
        pass


@pytest.mark.parametrize(("name", "said"), [("mlflow", "pip install 'hardspike[mlflow]'"), ("wand", "did you mean")])
def test_what_is_not_installed_or_unknown_is_said_before_anything_is_written(name, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    out = tmp_path / "mine"
    with pytest.raises(UsageError, match="track"):
        fit(config(out), track=name)
    try:
        status = run("trainer", COMMANDS, ["fit", "--out", str(out), "--track", name])
    except SystemExit as ended:
        status = ended.code
    error = capsys.readouterr().err
    assert status == 2 and said in error and error.count("\n") == 1 and not out.exists()
