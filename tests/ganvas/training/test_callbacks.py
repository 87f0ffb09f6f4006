"""Callbacks, and the loggers of other services with stand-ins for their packages."""

import sys
from unittest.mock import Mock, call

import numpy as np
import pytest

from ganvas.training.callbacks import Callbacks, MLflowLogger, StopTraining, WandbLogger, require_callbacks

IMAGE = np.zeros((4, 5, 3), np.uint8)


def use(logger):
    callbacks = Callbacks([logger])
    callbacks.notify("on_train_start")
    callbacks.notify("on_log", 3, {"loss_g": 0.5})
    callbacks.notify("on_images", 4, IMAGE)
    callbacks.notify("on_train_end", None)


def test_wandb_logger(monkeypatch):
    wandb = Mock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    use(WandbLogger(project="earth"))
    wandb.init.assert_called_once_with(project="earth")
    wandb.Image.assert_called_once_with(IMAGE)
    run = wandb.init.return_value
    expected = [call.log({"loss_g": 0.5}, step=3), call.log({"samples": wandb.Image.return_value}, step=4)]
    assert run.mock_calls == [*expected, call.finish()]


def test_mlflow_logger(monkeypatch):
    mlflow = Mock()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    use(MLflowLogger(run_name="earth"))
    assert mlflow.mock_calls == [
        call.start_run(run_name="earth"),
        call.log_metrics({"loss_g": 0.5}, step=3),
        call.log_image(IMAGE, "samples/step-00000004.png"),
        call.end_run(),
    ]


def test_a_callback_that_stops_the_training_does_not_hide_others():
    first, second = Mock(on_log=Mock(side_effect=StopTraining)), Mock()
    callbacks = Callbacks([first, second])
    callbacks.notify("on_log", 1, {})
    assert callbacks.stop_requested
    second.on_log.assert_called_once_with(1, {})


def test_objects_without_the_methods_are_refused():
    with pytest.raises(TypeError, match="3 is not a callback"):
        require_callbacks([3])
