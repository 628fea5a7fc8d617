"""The configuration: without torch, with one set of defaults, refused before anything is computed."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hardspike import UsageError, run
from trainer.__main__ import COMMANDS
from trainer.config import FitConfig, from_dict
from trainer.data import AugmentConfig, DataConfig
from trainer.networks import PRESETS, NetworkConfig
from trainer.neurons.spikes import Surrogate

HEAVY = ("torch", "snntorch", "sklearn", "scipy", "tonic")
ROOT = Path(__file__).parents[2]


def imported(script: str) -> subprocess.CompletedProcess:
    """What of HEAVY a process has imported at the end of a script, as its last line."""
    script = f"import sys\ntry:\n    {script}\nfinally:\n    print([m for m in {HEAVY} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("script", [
    "import trainer.config, trainer.commands",
    "from trainer.networks import NetworkConfig, PRESETS; NetworkConfig('resnet18')",
    "from trainer.data import DataConfig, SOURCES; DataConfig('nmnist')",
    *(f"from hardspike import run; from trainer.__main__ import COMMANDS; run('trainer', COMMANDS, {words})"
      for words in (["fit", "--help"], ["data", "--help"], ["fit", "--data.name", "digit"],
                    ["fit", "--network.layers", "ap2"], ["fit", "--method", "sasst"], ["fit", "--data.steps", "0"],
                    ["data", "digit"], ["data", "nmnist", "--window_ms", "3"])),
])
def test_configuration_help_and_usage_errors_import_no_torch(script):
    done = imported(script)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_what_is_imported_late_is_there():
    import trainer.data
    import trainer.networks

    assert trainer.networks.build.__name__ == "build" and trainer.networks.Network.__name__ == "Network"
    for name in trainer.data.__all__:
        assert getattr(trainer.data, name) is not None
    for module in (trainer.data, trainer.networks):
        with pytest.raises(AttributeError, match="nothing"):
            module.nothing  # noqa: B018


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_same_network_in_a_file_and_in_python(preset):
    assert from_dict({"network": {"layers": preset}}, "file").network == NetworkConfig(layers=preset)


def test_every_section_has_the_defaults_of_its_class():
    """So that what a file leaves out and what a Python caller leaves out are the same."""
    for field in dataclasses.fields(FitConfig):
        value = getattr(FitConfig(), field.name)
        if dataclasses.is_dataclass(value):
            assert value == type(value)(), field.name
    assert from_dict({"augment": {"shift": 3}, "network": {"surrogate": {"slope": 2}}}, "file") == FitConfig(
        augment=AugmentConfig(shift=3), network=NetworkConfig(surrogate=Surrogate(slope=2)))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: FitConfig(data=DataConfig(steps=0)), "steps 0: must be from 1 to"),
    (lambda: NetworkConfig("ap2"), "layers 'ap2': no neurons; add .*, such as ap2-128"),
    (lambda: NetworkConfig("128-4c3"), "4c3 comes after a dense layer"),
    (lambda: NetworkConfig("8r"), "8r comes first"),
    (lambda: NetworkConfig("9" * 5000), "cannot read"),
    (lambda: FitConfig(method="sasst"), "did you mean 'sast'"),
    (lambda: FitConfig(method="a2s"), "did you mean 'a2sg'"),
])
def test_what_cannot_be_is_refused_by_its_own_name(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_the_way_out_that_is_named_works():
    assert NetworkConfig("ap2-128").layers == "ap2-128" and NetworkConfig("ap2", readout="spikes")


def test_fit_with_layers_that_hold_no_neurons_is_one_line(tmp_path, capfd):
    with pytest.raises(SystemExit) as leaving:
        run("trainer", COMMANDS, ["fit", "--network.layers", "ap2", "--out", str(tmp_path / "run")])
    assert leaving.value.code == 2 and "no neurons" in capfd.readouterr().err
