"""A training state of another form is refused in one line, before anything of it is taken over."""

import pytest
import torch

from hardspike import HardspikeError
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.fit import fit
from trainer.methods import sast
from trainer.networks import NetworkConfig


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The files of runs of each kind of state after one of two epochs."""
    folder = tmp_path_factory.mktemp("stopped")
    for method in ("sast", "a2sg"):
        config = FitConfig(out=folder / method, epochs=1, batch_size=256, threads=1, method=method, average=0.9,
                           data=DataConfig(steps=3, size=8), network=NetworkConfig(layers="4c5s4"),
                           sast=sast.SastConfig(ascent="momentum"))
        fit(config)
        content = torch.load(config.out / "last.pt", weights_only=True)
        content["config"]["epochs"] = 2
        torch.save(content, config.out / "last.pt")
    return folder


def _group(training):
    return training["optimizer"]["param_groups"][0]


@pytest.mark.parametrize(("method", "change", "said"), [
    ("sast", lambda t: t["network"].pop("readout.weight", None) or t["network"].popitem(), "network: holds other tens"),
    ("sast", lambda t: t["average"].update({next(iter(t["average"])): torch.zeros(7)}), r"average: \S+ is a tensor"),
    ("sast", lambda t: t.update(average=5), "average: holds other tensors"),
    ("sast", lambda t: t.update(optimizer=[]), "optimizer: its groups of weights are not this run's"),
    ("sast", lambda t: _group(t).pop("eps"), "optimizer: its groups of weights have other options"),
    ("sast", lambda t: _group(t).update(betas=[0.9, "x"]), r"optimizer: betas is \[0\.9, 'x'\] instead of \(0\.9, "),
    ("sast", lambda t: _group(t).update(amsgrad=True), "optimizer: amsgrad is true instead of false"),
    ("sast", lambda t: _group(t).update(lr=float("nan")), "optimizer: lr is nan"),
    ("sast", lambda t: _group(t).update(params=[0, 1, 99]), "optimizer: params is "),
    ("sast", lambda t: t["optimizer"]["state"].update({77: {}}), "state 77 is of no weight"),
    ("sast", lambda t: t["optimizer"]["state"][0].update(step=torch.ones(3)), "step of weight 0 is a tensor"),
    ("sast", lambda t: t["optimizer"]["state"][0]["exp_avg"].fill_(float("inf")), "exp_avg of weight 0"),
    ("sast", lambda t: t["schedule"].update(last_epoch=-5), "schedule: last_epoch is -5"),
    ("sast", lambda t: t["schedule"].update(base_lrs="ab"), "schedule: base_lrs is 'ab'"),
    ("sast", lambda t: t["schedule"].update(optimizer=1), "schedule: has other keys"),
    ("sast", lambda t: t["schedule"].pop("_last_lr"), "schedule: has other keys"),
    ("sast", lambda t: t.update(method=3), "its training state is 3"),
    ("sast", lambda t: t["method"].update(step=None), "the state of its method"),
    ("sast", lambda t: t["method"].update(direction=[torch.ones(1)]), "the state of its method"),
    ("a2sg", lambda t: t["method"].update(widths={"lif9": torch.ones(3)}), "the state of its method"),
    ("a2sg", lambda t: t["method"]["widths"]["lif1"].fill_(0), "the state of its method"),
])
def test_a_training_state_of_another_form_is_one_line(stopped, tmp_path, method, change, said):
    out = tmp_path / "run"
    out.mkdir()
    content = torch.load(stopped / method / "last.pt", weights_only=True)
    change(content["training"])
    torch.save(content, out / "last.pt")
    with pytest.raises(HardspikeError, match=rf"last\.pt: .*{said}") as error:
        fit(FitConfig(out=out), resume=True, given=[])
    assert str(error.value).endswith("anew into another --out")
    assert not (out / "best.pt").exists()


@pytest.mark.parametrize("method", ["sast", "a2sg"])
def test_an_unchanged_training_state_is_gone_on_from(stopped, tmp_path, method):
    out = tmp_path / "run"
    out.mkdir()
    (out / "last.pt").write_bytes((stopped / method / "last.pt").read_bytes())
    (out / "best.pt").write_bytes((stopped / method / "best.pt").read_bytes())
    assert len(fit(FitConfig(out=out), resume=True, given=[]).history) == 2
