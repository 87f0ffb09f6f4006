"""The training loop with a minimal model; tests/test_training_contract.py trains the real ones."""

import errno
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from ganvas.data.decode import read_image
from ganvas.errors import UserError, WriteError
from ganvas.log import shown_log
from ganvas.training import checkpoint as checkpoint_module
from ganvas.training.batches import DataSpec
from ganvas.training.checkpoint import (
    Checkpoint,
    environment,
    list_checkpoints,
    load_checkpoint,
    load_newest_checkpoint,
    save_checkpoint,
)
from ganvas.training.config import LoggingConfig, ScheduleConfig
from ganvas.training.loop import train
from ganvas.training.monitors import HealthReport
from ganvas.training.optimizer import Adam
from ganvas.training.records import RunRecords


class Numbers(torch.utils.data.Dataset):
    """A sample is a function of its key; keys are recorded."""

    def __init__(self, length):
        self.length, self.keys = length, []

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        self.keys.append(key)
        return {"source": torch.from_numpy(np.random.default_rng(key).normal(size=(3, 4, 4)).astype(np.float32))}


class Toy:
    """A convolution with dropout that learns to output zero, with given scores.

    Its samples show its mode, which is the number of the last validated step.
    """

    criteria = ("val_l1",)

    def __init__(self, run, scores=()):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)).to(memory_format=torch.channels_last)
        self.networks = {"G": network}
        self.optimizers = {"G": Adam(network.named_parameters(), 0.01)}
        self.run, self.scores, self.saved, self.hook, self.lrs = run, list(scores), [], lambda step: None, []
        self.steps, self.done, self.losses, self.checks = 0, 0, [], []
        self.mode, self.num_checks = 255, 0
        self.per_process = {}

    @property
    def stateful(self):
        return {"G": self.networks["G"], "G.adam": self.optimizers["G"], **self.per_process}

    def step(self, batch, progress):
        loss = self.networks["G"](batch["source"]).square().mean()
        self.optimizers["G"].zero_grad()
        loss.backward()
        self.optimizers["G"].step()
        self.lrs.append(self.optimizers["G"].lr)
        self.steps += 1
        self.done += 1
        self.hook(self.steps)
        self.losses.append(loss.item())
        return {"loss_g": loss}

    def validate(self):
        torch.rand(7)  # must not change the training
        self.mode = self.done
        return {"val_l1": self.scores.pop(0)} if self.scores else {}

    def sample(self):
        return np.full((8, 8, 3), self.mode, np.uint8)

    def check_health(self, step, losses, *, with_images):
        torch.rand(7)
        self.checks.append((step, losses["loss_g"], with_images))
        self.num_checks += 1
        bad = ["all alike"] if self.steps == 8 else []
        return HealthReport({"diversity": 0.25} if with_images else {}, bad, ["look"] if self.steps == 6 else [])

    def save_model(self, step, metrics):
        self.saved.append(step)

    def state_dict(self):
        return {"mode": self.mode, "checks": self.num_checks, "done": self.done}

    def load_state_dict(self, state):
        self.mode, self.num_checks, self.done = state["mode"], state["checks"], state["done"]


class Gap(Numbers):
    """Sample 2 cannot be read and is replaced by sample 3."""

    def __getitem__(self, key):
        epoch, index = key
        return {**super().__getitem__((epoch, 3 if index == 2 else index)), "skipped": "2: bad" * (index == 2)}


class Broken(Numbers):
    """Reading fails at the sample number ``place`` of a run."""

    def __init__(self, length, place, error=None):
        super().__init__(length)
        self.place, self.error = place, error or UserError("x.png: cannot be decoded.")

    def __getitem__(self, key):
        if len(self.keys) == self.place:
            raise self.error
        return super().__getitem__(key)


def run_toy(
    run,
    *,
    steps=12,
    log=2,
    sample=4,
    save=4,
    keep=2,
    resume=False,
    scores=(),
    hook=None,
    batch_size=2,
    data=None,
    schedule=None,
    spoil=None,
):
    run.mkdir(exist_ok=True)
    toy = Toy(run, scores)
    if spoil:
        spoil(toy)
    if hook:
        toy.hook = hook
    data = data or Numbers(5)
    with shown_log():
        outcome = train(
            toy,
            DataSpec(data, 5, batch_size, 0),
            fabric=Fabric(accelerator="cpu", devices=1),
            run=run,
            seed=3,
            schedule_config=schedule or ScheduleConfig(steps=steps),
            logging=LoggingConfig(log, sample, save, keep),
            hyperparameters={"lr": 0.01},
            resume_from=load_newest_checkpoint(run) if resume else None,
        )
    return toy, outcome, data


def weights(toy):
    return {name: value.clone() for name, value in toy.networks["G"].state_dict().items()}


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_files_and_log_of_a_run(tmp_path, capsys):
    toy, outcome, _ = run_toy(tmp_path / "run")
    assert outcome.complete
    assert outcome.state.step == 12
    assert [line["step"] for line in lines(tmp_path / "run") if "loss_g" in line] == [2, 4, 6, 8, 10, 12]
    assert [line["step"] for line in lines(tmp_path / "run") if line.get("diversity") == 0.25] == [4, 8, 12]
    assert [line for line in lines(tmp_path / "run") if "warning" in line] == [{"step": 8, "warning": "all alike"}]
    assert [line for line in lines(tmp_path / "run") if "note" in line] == [{"step": 6, "note": "look"}]
    err = capsys.readouterr().err
    assert err.count("Warning, step 8: all alike") == err.count("Step 6: look") == 1
    assert {"loss_g", "lr", "images_per_second", "epoch", "seconds"} <= set(lines(tmp_path / "run")[0])
    assert [p.name for p in sorted((tmp_path / "run/samples").iterdir())] == [
        f"step-{step:08d}.png" for step in (4, 8, 12)
    ]
    assert [p.name for p in list_checkpoints(tmp_path / "run")] == ["step-00000008", "step-00000012"]
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert toy.saved == [4, 8, 12]  # nothing was validated: the newest is the model
    assert toy.lrs[5] == pytest.approx(0.01)
    assert toy.lrs[-1] == pytest.approx(0.01 / 7)


@pytest.mark.parametrize(("log", "sample"), [(2, 4), (4, 3), (6, 2)])
def test_health_checks_and_the_log_get_means_since_the_last_one(tmp_path, log, sample):
    toy, _, _ = run_toy(tmp_path / "run", log=log, sample=sample, save=12)
    steps = sorted({*range(log, 13, log), *range(sample, 13, sample)})
    expected = {step: np.mean(toy.losses[before:step]) for before, step in pairwise([0, *steps])}
    assert {step: loss for step, loss, _ in toy.checks} == pytest.approx(expected, rel=1e-5)
    assert [step for step, _, with_images in toy.checks if with_images] == list(range(sample, 13, sample))
    logged = {line["step"]: line["loss_g"] for line in lines(tmp_path / "run") if "loss_g" in line}
    assert logged == pytest.approx(expected, rel=1e-5)


class Killed(BaseException):
    """Ends a training as a kill does: nothing handles it."""


def killed_at(death):
    def hook(step):
        if step == death:
            raise Killed

    return hook


@pytest.mark.parametrize("death", [1, 3, 4, 5, 7, 8, 11])
@pytest.mark.slow
@pytest.mark.essential
def test_killed_and_resumed_run_ends_with_the_same_weights_log_and_samples(tmp_path, death):
    options = {"save": 4 if death > 4 else 2, "sample": 2}
    unbroken, _, _ = run_toy(tmp_path / "unbroken", **options)
    with pytest.raises(Killed):
        run_toy(tmp_path / "run", hook=killed_at(death), **options)
    resumed, outcome, _ = run_toy(tmp_path / "run", resume=bool(list_checkpoints(tmp_path / "run")), **options)
    assert outcome.complete
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(resumed)[name]), name
    clean, again = (
        [[line["step"], line["loss_g"], line["lr"]] for line in lines(tmp_path / name) if "loss_g" in line]
        for name in ("unbroken", "run")
    )
    assert again == clean
    assert samples(tmp_path / "run") == samples(tmp_path / "unbroken")
    last = [load_checkpoint(list_checkpoints(tmp_path / name)[-1]) for name in ("unbroken", "run")]
    for name, value in last[0].tensors["G.adam"].items():
        assert torch.equal(value, last[1].tensors["G.adam"][name]), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_stops_and_can_be_resumed(tmp_path, number):
    def hook(step):
        if step == 5:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    toy, outcome, _ = run_toy(tmp_path / "run", hook=hook, scores=[0.5, 0.1])
    assert toy.saved == [4]  # the stop itself is no validation: it would change which model is the best
    assert (outcome.complete, outcome.state.step, outcome.signal_number) == (False, 5, number)
    assert signal.getsignal(number) is before
    assert list_checkpoints(tmp_path / "run")[-1].name == "step-00000005"
    unbroken, whole_run, _ = run_toy(tmp_path / "unbroken", scores=[0.5, 0.2, 0.3])
    resumed, outcome, data = run_toy(tmp_path / "run", resume=True, scores=[0.2, 0.3])
    assert outcome.complete
    assert outcome.state.best_step == whole_run.state.best_step == 8
    assert len(data.keys) == 2 * 7
    assert torch.equal(weights(unbroken)["0.weight"], weights(resumed)["0.weight"])


def test_non_finite_loss_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    def spoil(toy):
        weight = toy.networks["G"][0].weight
        toy.hook = lambda step: weight.data.fill_(float("nan")) if step == 7 else None

    with pytest.raises(UserError, match=r"loss_g became non-finite between steps 7 and 8.*step-00000004"):
        run_toy(tmp_path / "run", spoil=spoil)
    checkpoint = load_newest_checkpoint(tmp_path / "run")
    assert checkpoint.step == 4
    assert all(torch.isfinite(value).all() for value in checkpoint.tensors["G"].values())


@pytest.mark.parametrize("spoiled", ["weight", "exp_avg", "exp_avg_sq", "buffer"])
def test_non_finite_weights_moments_and_buffers_are_never_saved(tmp_path, spoiled):
    def spoil(toy):
        network = toy.networks["G"]
        network.register_buffer("extra", torch.zeros(2))

        def hook(step):
            if step == 4:  # after the loss of the step was computed
                values = {"weight": network[0].bias.data, "buffer": network.extra}
                values |= {
                    name: toy.optimizers["G"].state_dict()[f"0.bias.{name}"] for name in ("exp_avg", "exp_avg_sq")
                }
                values[spoiled].fill_(np.inf)

        toy.hook = hook

    with pytest.raises(UserError, match=r"G.* has non-finite values after step 4\..*There is no checkpoint yet"):
        run_toy(tmp_path / "run", spoil=spoil)
    assert list_checkpoints(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, UserError),
        (WriteError("/tmp: cannot be written."), WriteError),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), UserError),
        (MemoryError(), MemoryError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("place", [1, 14, 15, 16])
@pytest.mark.slow
def test_error_while_loading_a_batch_loses_no_step(tmp_path, capsys, error, expected, place):
    unbroken, whole_run, _ = run_toy(tmp_path / "unbroken", scores=[0.5, 0.2, 0.3])
    scores, done = [0.5, 0.2, 0.3], place // 2
    with pytest.raises(UserError if expected is WriteError else expected) as caught:
        run_toy(tmp_path / "run", data=Broken(5, place, error), scores=scores)
    if done == 0:
        assert list_checkpoints(tmp_path / "run") == []
        return
    assert list_checkpoints(tmp_path / "run")[-1].name == f"step-{done:08d}"
    message = str(caught.value) if issubclass(expected, UserError) else capsys.readouterr().err
    assert f"Everything up to step {done} is saved. Continue with: --resume" in message
    assert ("--on-error skip" in message) == (error is None)
    left = [0.5, 0.2, 0.3][done // 4 :]  # of the validations after the resume
    resumed, outcome, data = run_toy(tmp_path / "run", resume=True, scores=left)
    assert outcome.complete
    assert len(data.keys) == 2 * (12 - done)
    assert torch.equal(weights(unbroken)["0.weight"], weights(resumed)["0.weight"])
    assert outcome.state.best_step == whole_run.state.best_step == 8


@pytest.mark.parametrize("method", ["validate", "sample", "check_health", "save_model"])
@pytest.mark.parametrize("error", [UserError("val.png: gone."), OSError(errno.ENOSPC, "No space left on device")])
def test_error_after_a_step_loses_neither_the_step_nor_its_validation(tmp_path, method, error):
    def fail(*arguments, with_images=True):
        if with_images:  # a health check of each record, but images at step 4
            raise error
        return HealthReport()

    run_toy(tmp_path / "unbroken", scores=[0.2, 0.5, 0.3])
    before = load_newest_checkpoint(tmp_path / "unbroken")
    with pytest.raises(type(error)):
        run_toy(tmp_path / "run", scores=[0.2], spoil=lambda toy: setattr(toy, method, fail))
    (folder,) = list_checkpoints(tmp_path / "run")
    assert folder.name == "step-00000004"
    again = method in ("validate", "save_model")  # the validation comes before the samples
    toy, outcome, _ = run_toy(tmp_path / "run", resume=True, scores=[0.2, 0.5, 0.3] if again else [0.5, 0.3])
    assert (toy.saved, outcome.state.best_step) == ([4] if again else [], 4)
    after = load_newest_checkpoint(tmp_path / "run")
    for name, tensors in before.tensors.items():
        assert all(torch.equal(value, after.tensors[name][key]) for key, value in tensors.items()), name
    ignored = {"seconds", "model_state"}  # samples and health check of step 4 are not repeated
    assert {k: v for k, v in after.state.items() if k not in ignored} == {
        k: v for k, v in before.state.items() if k not in ignored
    }


def test_error_within_a_step_leaves_the_last_checkpoint(tmp_path):
    """Some weights may be updated and others not, so the step cannot be saved."""

    def fail(step):
        if step == 7:
            raise UserError("failed.")

    with pytest.raises(UserError, match=r"failed\. The last checkpoint, .*step-00000004, is good\."):
        run_toy(tmp_path / "run", hook=fail)
    assert [folder.name for folder in list_checkpoints(tmp_path / "run")] == ["step-00000004"]


def test_non_finite_loss_with_finite_weights_loses_no_step(tmp_path):
    def poison(toy):
        step = toy.step
        toy.step = lambda batch, progress: {
            name: value * (1 if toy.steps != 6 else np.nan) for name, value in step(batch, progress).items()
        }

    with pytest.raises(UserError, match=r"loss_g became non-finite between steps 5 and 6.*up to step 6 is saved"):
        run_toy(tmp_path / "run", spoil=poison)
    unbroken, _, _ = run_toy(tmp_path / "unbroken")
    resumed, _, _ = run_toy(tmp_path / "run", resume=True)
    assert torch.equal(weights(unbroken)["0.weight"], weights(resumed)["0.weight"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("place", "saved", "best"), [(0, [4, 8], 8), (1, [4, 12], 12), (2, [4, 8], 8)])
def test_non_finite_validation_never_counts(tmp_path, capsys, bad, place, saved, best):
    scores = [0.5, 0.4, 0.3]
    if place == 0:
        scores[2] = 0.6
    scores[place] = bad
    toy, outcome, _ = run_toy(tmp_path / "run", scores=scores)
    assert outcome.complete
    assert toy.saved == saved  # before the first finite validation, the newest step is the model
    assert (outcome.state.best_step, outcome.state.best_metrics) == (best, {"val_l1": scores[best // 4 - 1]})
    assert capsys.readouterr().err.count(f"The validation failed: val_l1 is {bad}") == 1
    assert [line["step"] for line in lines(tmp_path / "run") if "val_l1" in line] == [
        step for step, score in zip((4, 8, 12), scores, strict=True) if np.isfinite(score)
    ]
    assert load_newest_checkpoint(tmp_path / "run").state["plateau"]["waited"] == (1 if place == 0 else 0)


@pytest.mark.parametrize("stop", [3, 4, 5, 7])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_epochs_continue_with_another_batch_size(tmp_path, stop, before, after):
    """As with another number of devices."""

    def hook(step):
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    schedule = ScheduleConfig(epochs=3, decay_epochs=1)
    _, _, first = run_toy(tmp_path / "run", schedule=schedule, batch_size=before, hook=hook, save=100, log=1)
    per_epoch = {1: 5, 2: 3}
    epoch, place = divmod(stop, per_epoch[before])
    seen = place * before
    toy, outcome, rest = run_toy(tmp_path / "run", schedule=schedule, batch_size=after, resume=True, save=100, log=1)
    left = per_epoch[after] - seen // after + (4 - epoch - 1) * per_epoch[after]
    assert outcome.complete
    assert (toy.steps, outcome.state.step) == (left, stop + left)
    keys = [*first.keys, *rest.keys]
    for number in range(4):
        found = [index for each, index in keys if each == number]
        assert set(found) == set(range(5))
        assert len(found) <= 5 + 2 * max(before, after)
    assert toy.lrs[-per_epoch[after] :] == pytest.approx([0.01 / 2] * per_epoch[after])
    assert toy.lrs[: -per_epoch[after]] == pytest.approx([0.01] * (left - per_epoch[after]))
    logged = [line["epoch"] for line in lines(tmp_path / "run") if "epoch" in line]
    assert logged[stop:] == [epoch] * (per_epoch[after] - seen // after) + [
        each for each in range(epoch + 1, 4) for _ in range(per_epoch[after])
    ]


SEVERAL = """
import sys
from pathlib import Path
from test_loop import *
from ganvas.training.config import HardwareConfig
from ganvas.training.fabric import make_fabric

class FailingOnRank1(Toy):
    def step(self, batch, progress):
        losses = super().step(batch, progress)
        return {name: value * (float("nan") if (RANK, self.steps) == (1, 6) else 1) for name, value in losses.items()}

run = Path(sys.argv[1])
fabric = make_fabric(HardwareConfig(device="cpu", devices=2))
RANK = fabric.global_rank
run.mkdir(exist_ok=True)
data = Broken(5, 13) if (RANK, sys.argv[2]) == (1, "unreadable") else Numbers(5)
toy = (FailingOnRank1 if sys.argv[2] == "nan" else Toy)(run, [0.5, 0.2, 0.3])
if (RANK, sys.argv[2]) == (0, "validation"):
    toy.validate = lambda: 1 / 0
options = dict(fabric=fabric, run=run, seed=3, schedule_config=ScheduleConfig(steps=12), hyperparameters={})
try:
    train(toy, DataSpec(data, 5, 2, 0), logging=LoggingConfig(2, 4, 4, 2), **options)
except (UserError, ZeroDivisionError) as error:
    (run / f"error-{RANK}").write_text(str(error))
"""


@pytest.mark.parametrize(
    ("kind", "step", "first", "second"),
    [
        ("nan", 6, "loss_g became non-finite", "loss_g became non-finite"),
        ("unreadable", 6, "x.png: cannot be decoded.", "x.png: cannot be decoded."),
        ("validation", 4, "division by zero", "Process 0 failed with ZeroDivisionError"),
    ],
)
@pytest.mark.slow
def test_processes_stop_together_and_save(tmp_path, kind, step, first, second):
    (tmp_path / "several.py").write_text(SEVERAL)
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[2])])
    done = subprocess.run(
        [sys.executable, tmp_path / "several.py", tmp_path / "run", kind],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert first in (tmp_path / "run" / "error-0").read_text()
    error = (tmp_path / "run" / "error-1").read_text()
    assert second in error
    assert f"Everything up to step {step} is saved" in error
    assert load_newest_checkpoint(tmp_path / "run").step == step


def test_best_model_and_its_checkpoint_are_kept(tmp_path):
    toy, outcome, _ = run_toy(tmp_path / "run", steps=10, save=2, keep=1, scores=[0.5, 0.3, 0.4, 0.6, 0.31])
    assert toy.saved == [2, 4]
    assert outcome.state.best_step == 4
    assert outcome.state.best_metrics == {"val_l1": 0.3}
    assert [p.name for p in list_checkpoints(tmp_path / "run")] == ["step-00000004", "step-00000010"]


@pytest.mark.parametrize(("kind", "last"), [("linear", 0.01), ("plateau", 0.002)])
def test_only_the_plateau_schedule_depends_on_validations(tmp_path, kind, last):
    schedule = ScheduleConfig(steps=18, decay_steps=0, schedule=kind)
    toy, _, _ = run_toy(tmp_path / "run", save=2, scores=[1.0] * 9, schedule=schedule)
    assert toy.lrs[:14] == [0.01] * 14  # the first validation, and a patience of five
    assert toy.lrs[14:] == pytest.approx([last] * 4)


def test_every_sample_is_used_once_an_epoch(tmp_path):
    _, _, data = run_toy(tmp_path / "run", steps=10, batch_size=1)
    assert [epoch for epoch, _ in data.keys] == [0] * 5 + [1] * 5
    assert sorted(index for _, index in data.keys[:5]) == [0, 1, 2, 3, 4]
    assert sorted(index for _, index in data.keys[5:]) == [0, 1, 2, 3, 4]


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def test_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, caplog):
    unbroken, _, _ = run_toy(tmp_path / "run", save=2)
    damage(list_checkpoints(tmp_path / "run")[-1] / "G.safetensors")
    assert load_newest_checkpoint(tmp_path / "run").step == 10
    assert "step-00000012" in caplog.messages[-1]
    assert "damaged" in caplog.messages[-1]
    resumed, _, _ = run_toy(tmp_path / "run", save=2, resume=True)
    assert torch.equal(weights(unbroken)["0.weight"], weights(resumed)["0.weight"])
    assert load_newest_checkpoint(tmp_path / "run").step == 12


def test_skipped_samples_are_counted_across_a_resume(tmp_path, caplog):
    options = {"steps": 10, "batch_size": 1}
    _, unbroken, _ = run_toy(tmp_path / "unbroken", data=Gap(5), scores=[0.5, 0.6, 0.4], **options)
    assert unbroken.state.skipped == 2  # once in each of two epochs
    assert unbroken.state.best_step == 10
    assert caplog.messages.count("Skipped: 2: bad") == 1
    with pytest.raises(UserError):
        run_toy(tmp_path / "run", data=Gap(5), hook=_stop_at_7, scores=[0.5], **options)
    _, resumed, _ = run_toy(tmp_path / "run", data=Gap(5), resume=True, scores=[0.6, 0.4], **options)
    assert resumed.state.skipped == 2


def _stop_at_7(step):
    if step == 7:
        raise UserError("stopped")


def test_state_of_the_model_is_restored(tmp_path):
    run_toy(tmp_path / "run", steps=8)
    toy, _, _ = run_toy(tmp_path / "run", resume=True)
    assert toy.state_dict() == {"mode": 12, "checks": 6, "done": 12}


def samples(run):
    return {path.name: path.read_bytes() for path in (run / "samples").iterdir()}


def test_samples_use_the_mode_of_the_last_validation(tmp_path):
    run_toy(tmp_path / "run", sample=2, save=4)
    modes = [int(read_image(path)[0, 0, 0]) for path in sorted((tmp_path / "run/samples").iterdir())]
    assert modes == [255, 4, 4, 8, 8, 12]  # 255 before the first validation
    checkpoint = load_newest_checkpoint(tmp_path / "run")
    assert checkpoint.state["model_state"]["mode"] == 12


def test_run_without_checkpoints_starts_again(tmp_path, caplog):
    assert load_newest_checkpoint(tmp_path) is None
    assert caplog.messages == [f"{tmp_path}: has no checkpoint yet; training starts from its first step."]


def test_model_without_checkpoints_is_not_trained_again(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"training": {"step": 5}}')
    with pytest.raises(UserError, match="has a model, but no checkpoint to resume from"):
        load_newest_checkpoint(tmp_path, first_save=4)
    # Killed between its first model and its first checkpoint.
    assert load_newest_checkpoint(tmp_path, first_save=5) is None


def test_thread_count_is_restored(tmp_path, caplog):
    run_toy(tmp_path / "run", steps=4)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    caplog.clear()
    try:
        load_newest_checkpoint(tmp_path / "run")
        assert torch.get_num_threads() == before
        assert caplog.messages == []
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "change",
    [
        {"files": None},
        {"files": ["G.safetensors"]},
        {"files": {"../G.safetensors": "0"}},
        {"files": {"/etc/passwd": "0"}},
        {"step": "x"},
        {"step": -1},
        {"state": []},
        {"environment": 5},
    ],
)
def test_invalid_checkpoint_info_is_refused(tmp_path, change):
    folder = save_checkpoint(tmp_path, Checkpoint(3, {"G": {"w": torch.zeros(1)}}, {}))
    file = folder / "checkpoint.json"
    info = {name: value for name, value in (json.loads(file.read_text()) | change).items() if value is not None}
    info.pop("digest")
    file.write_text(json.dumps(info | {"digest": checkpoint_module._digest(info)}))
    with pytest.raises(UserError, match=r"checkpoint\.json: "):
        load_checkpoint(folder)


@pytest.mark.parametrize("threads", [10**9, 0, -1, "2", 2.5])
def test_invalid_thread_count_is_not_restored(tmp_path, monkeypatch, caplog, threads):
    before = torch.get_num_threads()
    monkeypatch.setattr(checkpoint_module, "environment", lambda: environment() | {"threads": threads})
    save_checkpoint(tmp_path, Checkpoint(3, {"G": {"w": torch.zeros(1)}}, {}))
    monkeypatch.undo()
    load_newest_checkpoint(tmp_path)
    assert torch.get_num_threads() == before
    assert f"threads {threads} → {before}" in caplog.text


def test_invalid_lines_are_removed_from_the_log(tmp_path):
    good = ['{"step": 1, "loss": 1}', '{"step": 3}']
    bad = ["[" * 100_000, '{"step": ' + "9" * 5000 + "}", "[1]", "5", '{"step": null}', '{"st']
    (tmp_path / "metrics.jsonl").write_text("\n".join([good[0], *bad, good[1], '{"step": 4}']))
    RunRecords(tmp_path, 3, 10, {}).close()
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == good


def test_options_that_are_not_utf8_are_escaped_for_tensorboard(tmp_path):
    log = RunRecords(tmp_path, 0, 10, {"data.data": "na\udcefve"})
    log.final_metrics({"l1": 0.5})
    log.close()
    assert any(rb"na\udcefve" in events.read_bytes() for events in tmp_path.glob("events.*"))


def test_a_loss_that_is_not_computed_in_each_step_is_averaged_over_its_own(tmp_path):
    """Lazy penalties: the log shows the penalty, not an eighth of it; and each step knows where it stands."""
    seen = []

    def add_penalty(toy):
        step = toy.step

        def with_penalty(batch, progress):
            seen.append((progress.step, progress.total_steps))
            return step(batch, progress) | ({"loss_r1": torch.tensor(3.0)} if progress.step % 4 == 0 else {})

        toy.step = with_penalty

    run_toy(tmp_path, spoil=add_penalty, log=3)
    assert seen == [(step, 12) for step in range(12)]
    logged = {line["step"]: line.get("loss_r1") for line in lines(tmp_path) if "loss_g" in line}
    assert {step: logged[step] for step in (3, 6, 9, 12)} == {3: 3.0, 6: 3.0, 9: 3.0, 12: None}
