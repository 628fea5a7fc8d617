"""Training: a resumed run, a killed save, bad input; what each method does to the gradient."""

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from hardspike import HardspikeError, UsageError, run
from tests.networks import THEORY
from trainer import checkpoint
from trainer.__main__ import COMMANDS
from trainer.analysis import theory
from trainer.config import KEEP, FitConfig, from_dict, to_dict
from trainer.data import DataConfig, load
from trainer.evaluate import evaluate
from trainer.fit import fit
from trainer.methods import METHODS, sast
from trainer.networks import NetworkConfig, build
from trainer.neurons.spikes import Surrogate
from trainer.run import Run, is_best


@pytest.fixture
def small(tmp_path) -> FitConfig:
    return FitConfig(out=tmp_path / "run", epochs=3, batch_size=64, threads=1, data=DataConfig(steps=4),
                     network=NetworkConfig(layers="4c5s4-16", batch_norm=True))


@pytest.mark.parametrize("options", [dict(method="sast"), dict(method="hard", average=0.9),
                                     dict(method="sast", sast=sast.SastConfig(ascent="momentum"), slope_end=4.0)])
def test_resumed_run_reaches_the_same_weights(small, tmp_path, options):
    config = replace(small, **options)
    whole = fit(config)
    broken = replace(config, out=tmp_path / "broken")
    # the process dies in epoch 3, after the second save
    script = (f"import trainer.run as r, pickle, os\nepoch = r.Run.epoch\n"
              f"r.Run.epoch = lambda self, e: os._exit(9) if e == 3 else epoch(self, e)\n"
              f"from trainer.fit import fit\nfit(pickle.loads({pickle.dumps(broken)!r}))")
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 9
    assert checkpoint.load(broken.out / "last.pt").epoch == 2
    fit(broken, resume=True)
    for name in ("last.pt", "best.pt"):
        one, two = (checkpoint.load(folder / name).network.state_dict() for folder in (whole.folder, broken.out))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_short_run_is_judged_by_what_it_has_learnt(small):
    """Two dozen steps, of which BatchNorm's statistics and the average would mostly hold what they began with."""
    done = fit(replace(small, method="hard", epochs=2, batch_size=128, lr=1e-2, network=NetworkConfig(
        layers="8c5s2-16c3s2-32", batch_norm=True)))
    assert done.history[-1]["hard_accuracy"] > 0.5, done.history[-1]


def test_layers_in_which_nothing_fires_are_named(small, caplog):
    fit(replace(small, method="hard", epochs=1, network=replace(small.network, threshold=1e4, batch_norm=False)))
    assert "silent: lif1, lif2" in caplog.text


def test_kill_during_a_save_leaves_a_loadable_checkpoint(small, tmp_path):
    network = build(small.network, (2, 34, 34), 10)
    content = checkpoint.Checkpoint(small, network, (2, 34, 34), 10, 1, [], THEORY)
    path = tmp_path / "last.pt"
    checkpoint.save(content, path)
    script = f"""
import pathlib, sys
from trainer import checkpoint
content = checkpoint.load({str(path)!r})
def slow(path, data):  # half of the file, then a sign of life, then wait to be killed
    open(path, "wb").write(data[:len(data) // 2])
    print("half", flush=True)
    sys.stdin.read()
pathlib.Path.write_bytes = slow
checkpoint.save(content, {str(path)!r})
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"half\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    loaded = checkpoint.load(path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.network.parameters(), network.parameters(), strict=True))


def _bad_files(folder):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch executed",)

    good = folder / "good.pt"
    torch.save({"anything": torch.zeros(3)}, good)
    (folder / "empty.pt").write_bytes(b"")
    (folder / "truncated.pt").write_bytes(good.read_bytes()[:200])
    (folder / "text.pt").write_text("hello")
    torch.save({"x": Evil()}, folder / "evil.pt")
    (folder / "evil_pickle.pt").write_bytes(pickle.dumps(Evil()))
    return {"missing.pt": "no such", "good.pt": "not a checkpoint", "empty.pt": "not a checkpoint",
            "truncated.pt": "not a checkpoint", "text.pt": "not a checkpoint", "evil.pt": "execute code",
            "evil_pickle.pt": "execute code|not a checkpoint"}


def test_bad_checkpoints_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, message in _bad_files(tmp_path).items():
        with pytest.raises(HardspikeError, match=message) as caught:
            checkpoint.load(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(("words", "message"), [
    (["--epoch", "3"], "did you mean '--epochs'"),
    (["--network.betta", "0.3"], "did you mean '--network.beta'"),
    (["--network.beta", "1.5"], "a leak lies in [0, 1]"),
    (["--method", "sasst"], "did you mean 'sast'"),
    (["--epochs", "0"], "must be 1 or more"),
    (["--network.layers", "12c5-x"], "cannot read 'x'"),
    (["--network.layers", "12c5s40-3c9p0"], "leaves a picture"),
    (["--network.surrogate.name", "atan"], "did you mean 'arctan'"),
    (["--sast.second_batch", "same"], "known: independent, reused"),
    (["--data.name", "digit"], "did you mean 'digits'"),
    (["--network.layers", "4c3s0-8"], "are 1 or more"),
    (["--threads", "-1"], "must be 1 or more"),
    (["--augment.shift", "-1"], "must be at least 0"),
    (["--lr", "1e300"], "lr 1e+300: must be at most 3.4e+38"),
    (["--network.threshold", "1e300"], "network.threshold 1e+300: must be at most"),
    (["--batch_size", "100000000000000000000"], "must be at most 9.22337e+18"),
    (["--seed", "10000000000000"], "seed 10000000000000: must be at most"),
])
def test_usage_errors_are_one_line_with_status_2(words, message, tmp_path, capfd):
    try:
        status = run("trainer", COMMANDS, ["fit", "--out", str(tmp_path / "run"), *words])
    except SystemExit as leaving:
        status = leaving.code
    error = capfd.readouterr().err
    assert status == 2 and message in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_unknown_key_in_a_configuration_file(tmp_path, capfd):
    (tmp_path / "c.yaml").write_text("network:\n  treshold: 1\n")
    with pytest.raises(SystemExit) as leaving:
        run("trainer", COMMANDS, ["fit", "--config", str(tmp_path / "c.yaml")])
    assert leaving.value.code == 2 and "did you mean 'network.threshold'" in capfd.readouterr().err


def test_configuration_survives_a_dict(small):
    config = replace(small, slope_end=3.0, network=replace(small.network, surrogate=Surrogate("sigmoid", 2.0, True)))
    assert from_dict(to_dict(config), "here") == config
    with pytest.raises(HardspikeError, match=r"here: .*epoch_s"):
        from_dict({"epoch_s": 3}, "here")


def test_a_finished_run_is_not_overwritten_and_a_resumed_one_keeps_its_settings(small):
    config = replace(small, epochs=1)
    fit(config)
    with pytest.raises(UsageError, match="holds a run already"):
        fit(config)
    with pytest.raises(UsageError, match=r"epochs: 1 -> 2"):
        fit(replace(config, epochs=2), resume=True)


def test_a_resumed_run_may_be_given_a_part_of_its_settings(small):
    """Only what the caller set is compared: the command line's words, or in Python what is not the default."""
    config = replace(small, epochs=1)
    fit(config)
    out = str(config.out)
    assert run("trainer", COMMANDS, ["fit", "--out", out, "--resume", "--batch_size", "64"]) == 0
    assert len(fit(FitConfig(out=config.out, threads=1), resume=True).history) == 1
    assert run("trainer", COMMANDS, ["fit", "--out", out, "--resume", "--data.steps", "5"]) == 2
    default = str(FitConfig.epochs)  # said, although it is what it would be unsaid
    assert run("trainer", COMMANDS, ["fit", "--out", out, "--resume", "--epochs", default]) == 2
    with pytest.raises(UsageError, match=r"data\.steps: 4 -> 10\)"):
        fit(FitConfig(out=config.out), resume=True, given=["data.steps"])


def test_a_copied_best_cannot_be_gone_on_from(small):
    config = replace(small, epochs=1)
    done = fit(config)
    (config.out / "last.pt").write_bytes(done.best.read_bytes())
    with pytest.raises(HardspikeError, match=r"last\.pt: holds a network, but not where its training stood"):
        fit(config, resume=True)


def test_torch_is_left_as_it_was(small, monkeypatch):
    """Threads, precision flags, random numbers: after a run, after a refused one, after evaluation."""
    def state():
        return (torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark,
                torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), torch.get_default_dtype(),
                torch.backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu"))

    torch.set_num_threads(2)
    try:
        before = state()
        done = fit(replace(small, epochs=1, threads=1, precision="bf16"))
        assert state() == before
        seen = []
        monkeypatch.setattr(Run, "step", lambda *_: seen.append(torch.get_num_threads()) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(replace(small, out=small.out.with_name("b"), threads=1))
        assert state() == before and seen == [1]
        stored, data = checkpoint.load(done.best), load(small.data)
        evaluate(stored.network, data, data.test, hard=True)
        assert state() == before
    finally:
        torch.set_num_threads(1)


def test_evaluation_leaves_the_network_as_it_was_after_a_failure(small):
    network, data = build(small.network, (2, 34, 34), 10).train(), load(small.data)

    def broken(frames):
        raise HardspikeError("no frames")

    data.to_input = broken
    with pytest.raises(HardspikeError, match="no frames"):
        evaluate(network, data, data.test, hard=True)
    assert network.training and not any(neuron.hard for neuron in network.neurons().values())


def test_two_runs_do_not_share_a_folder(small, monkeypatch):
    """The second is refused while the first runs, and no epoch of either is lost."""
    epoch, refused = Run.epoch, []

    def meanwhile(run, number):
        if not refused:
            refused.append("")
            script = f"import pickle; from trainer.fit import fit; fit(pickle.loads({pickle.dumps(run.config)!r}))"
            refused[0] = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stderr
        return epoch(run, number)

    monkeypatch.setattr(Run, "epoch", meanwhile)
    assert len(fit(replace(small, epochs=1)).history) == 1
    assert f"process {os.getpid()}" in refused[0] and "is writing to this folder" in refused[0]


def test_the_kept_epoch_is_the_latest_that_the_validation_part_cannot_tell_from_the_best():
    def kept(accuracies, samples):
        history = [{"hard_accuracy": a} for a in accuracies]
        return max(n for n in range(1, len(history) + 1) if is_best(history[:n], samples))

    assert kept([0.5, 0.96, 0.95, 0.7], samples=100) == 3  # one standard error is 0.02
    assert kept([0.5, 0.96, 0.95, 0.7], samples=10_000) == 2
    assert kept([0.9, 1.0, 0.9], samples=100) == 2
    history = [{"hard_accuracy": 0.9, "surrogate_accuracy": 0.1}, {"hard_accuracy": 0.1, "surrogate_accuracy": 0.9}]
    assert [is_best(history, 100, keep) for keep in KEEP] == [False, True, True]


@pytest.mark.parametrize("keep", KEEP)
def test_best_is_the_epoch_that_keep_says(small, keep):
    run = fit(replace(small, epochs=3, keep=keep))
    stored = checkpoint.load(run.best)
    kept = [n for n in (1, 2, 3) if is_best(run.history[:n], len(load(small.data).validation), keep)]
    assert stored.epoch == kept[-1] and (keep != "last" or stored.epoch == 3)
    assert all(row["peak_memory"] > 1e7 and row["train_seconds"] > 0 for row in stored.history)


def test_sharpness_is_logged_where_it_is_asked_for(small):
    run = fit(replace(small, epochs=3, diagnose=2, slope_end=3.0))
    logged = [row for row in run.history if "sam_gap" in row]
    assert [row["epoch"] for row in logged] == [2, 3]
    assert logged[1]["q_loose"] == pytest.approx(0.9 + 3.0) and logged[1]["secant_gradient"] > 0
    header, *lines = (run.folder / "metrics.csv").read_text().splitlines()
    assert "sam_gap" in header.split(",") and len(lines) == 3


@pytest.mark.parametrize(("lr", "message"), [
    (1e30, "loss became "), (3e38, "the optimizer's step failed .value cannot be converted")])
def test_divergence_is_named(small, lr, message):
    with pytest.raises(HardspikeError, match=rf"{message}.* in epoch 1; the run diverged: lower lr or network.gain$"):
        fit(replace(small, lr=lr, method="surrogate", network=NetworkConfig(layers="4c5s4-16", batch_norm=False)))


# ------------------------------------------------------------------------------------------------ methods


def _quadratic():
    """A network of one weight vector and the loss |A w - b|^2 / 2, whose gradient is known."""
    network = torch.nn.Linear(3, 1, bias=False).double()
    matrix, target = torch.randn(2, 5, 3).double(), torch.randn(2, 5).double()

    def loss(batch):
        return 0.5 * (network(matrix[batch]).squeeze(-1) - target[batch]).square().sum()

    def known(w, batch):
        return matrix[batch].T @ (matrix[batch] @ w - target[batch])

    return network, loss, known


@pytest.mark.parametrize("second_batch", ["independent", "reused"])
def test_sast_takes_the_gradient_at_the_ascended_weights(second_batch):
    network, loss, known = _quadratic()
    config = FitConfig(sast=sast.SastConfig(rho=0.3, second_batch=second_batch))
    state, w = sast.SastState(), network.weight.detach()[0].clone()
    sast.gradient(network, loss, 0, lambda: 1, config, state)
    ascent = known(w, 1 if second_batch == "independent" else 0)
    torch.testing.assert_close(network.weight.grad[0], known(w + 0.3 * ascent / ascent.norm(), 0))
    assert torch.equal(network.weight[0], w) and state.gradient_evaluations == 2


def test_sast_variants():
    network, loss, known = _quadratic()
    w = network.weight.detach()[0].clone()
    every = FitConfig(sast=sast.SastConfig(rho=0.3, every=3))
    state = sast.SastState()
    for _ in range(6):
        sast.gradient(network, loss, 0, lambda: 1, every, state)
    assert state.gradient_evaluations == 6 + 2
    torch.testing.assert_close(network.weight.grad[0], known(w, 0))  # the sixth step is a plain one

    momentum = FitConfig(sast=sast.SastConfig(rho=0.3, ascent="momentum"))
    state = sast.SastState()
    sast.gradient(network, loss, 0, lambda: 1, momentum, state)
    sast.gradient(network, loss, 0, lambda: 1, momentum, state)
    g = known(w, 0)  # the first step has no direction yet; the second ascends along it
    torch.testing.assert_close(network.weight.grad[0], known(w + 0.3 * g / g.norm(), 0))
    assert state.gradient_evaluations == 2


def test_asam_as_its_paper_has_it_and_as_its_authors_code_does():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    torch.nn.init.normal_(network[1].bias)
    weights = list(network.parameters())
    gradient = [torch.randn_like(w) for w in weights]

    def expected(scaled):
        scales = [w.detach().abs() + 0.01 if scale else torch.ones_like(w)
                  for w, scale in zip(weights, scaled, strict=True)]
        norm = torch.cat([(t * g).flatten() for t, g in zip(scales, gradient, strict=True)]).norm()
        return [0.5 * t**2 * g / norm for t, g in zip(scales, gradient, strict=True)]

    for kind, scaled in (("kwon", (True,) * 4), ("authors", (True, False, True, False)), ("none", (False,) * 4)):
        found = sast.perturbation(weights, gradient, 0.5, sast.asam_scales(network, kind))
        torch.testing.assert_close(found, expected(scaled))
    assert [sast.SastConfig(adaptive=kind).radius for kind in ("none", "kwon", "authors")] == [0.05, 0.5, 0.5]
    assert replace(FitConfig().sast, adaptive="kwon").radius == 0.5  # a default is no choice of the radius
    assert [sast.SastConfig(adaptive=old).adaptive for old in (False, True)] == ["none", "kwon"]
    assert sast.SastConfig(adaptive="authors", rho=0.1).radius == 0.1
    with pytest.raises(UsageError, match="did you mean 'kwon'"):
        sast.SastConfig(adaptive="kwo")


@pytest.mark.parametrize("options", [{}, {"second_batch": "reused"}, {"second_batch": "previous"}, {"adaptive": "kwon"},
                                     {"every": 2}, {"ascent": "momentum"}, {"ascent": "momentum", "every": 2}])
def test_batch_statistics_are_those_at_the_weights_that_are_evaluated(options):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    x = torch.randn(8, 3)
    config, state = FitConfig(sast=sast.SastConfig(**{"rho": 3.0, **options})), sast.SastState()
    for _ in range(3):  # the same minibatch whoever draws it: any pass at w gives the same statistics
        twin.load_state_dict(network.state_dict())
        sast.gradient(network, lambda _: network(x).square().sum(1).mean(), 0, lambda: 0, config, state)
        twin(x)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(network[1], name), getattr(twin[1], name))
    assert network[1].momentum == 0.1


@pytest.mark.parametrize(("norm", "passes"), [(torch.nn.Identity(), 1), (torch.nn.BatchNorm1d(4), 2)])
def test_a_step_along_the_running_mean_costs_a_pass_for_statistics_only_where_there_are_any(norm, passes):
    network, seen = torch.nn.Sequential(torch.nn.Linear(3, 4), norm), []
    x = torch.randn(8, 3)
    config, state = FitConfig(sast=sast.SastConfig(rho=0.3, ascent="momentum")), sast.SastState()

    def loss(_):
        seen.append(torch.is_grad_enabled())
        return network(x).square().mean()

    for expected in ([True], [False] * (passes - 1) + [True]):  # the first step has no running mean yet
        seen.clear()
        sast.gradient(network, loss, 0, lambda: 0, config, state)
        assert seen == expected
    assert state.gradient_evaluations == 2


# ------------------------------------------------------------------------------------------------- theory


def test_theory_report():
    """q of SAST eq. 19 at lambda 0.9, theta 1, alpha 2 (slope 1): loose 1.9, tight 0.9."""
    config = NetworkConfig(layers="4c5s4-16", beta=0.9, batch_norm=False, surrogate=Surrogate("arctan", 1.0))
    found = theory.report(build(config, (2, 34, 34), 10), hard=False)
    assert (found["q_loose"], found["q_tight"]) == pytest.approx((1.9, 0.9))
    assert not found["theory_aligned"] and found["why_not"] == "loose q = 1.9 >= 1"
    aligned = replace(config, beta=0.5, threshold=0.5, surrogate=Surrogate("arctan", 0.9))
    found = theory.report(build(aligned, (2, 34, 34), 10), hard=False)
    assert found["theory_aligned"] and found["q_loose"] == pytest.approx(0.95)
    assert found["phi(-theta)"] == pytest.approx(0.5 - torch.atan(torch.tensor(torch.pi * 0.9 * 0.5)).item() / torch.pi)
    for change, reason in ((dict(batch_norm=True), "BatchNorm"), (dict(reset="zero"), "subtraction"),
                           (dict(layers="4c5s4-mp2-16"), "MaxPool"), (dict(readout="spikes"), "eq. 6")):
        found = theory.report(build(replace(aligned, **change), (2, 34, 34), 10), hard=False)
        assert not found["theory_aligned"] and reason in found["why_not"]
    assert set(METHODS) >= {"surrogate", "hard", "sast"}
