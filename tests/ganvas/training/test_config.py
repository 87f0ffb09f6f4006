"""Options that all trainings share."""

from dataclasses import replace

import pytest

from ganvas.errors import UserError
from ganvas.training.config import require_resumable
from pix2pix.config import Pix2PixConfig


def test_options_that_a_resumed_run_may_not_change_are_named_as_they_are_given():
    config = Pix2PixConfig()
    changed = replace(
        config,
        optimizer=replace(config.optimizer, lr=0.1, beta2=0.5),
        logging=replace(config.logging, log_every_steps=7),
        seed=1,
    )
    expected = r"cannot change --lr \(was 0.0002, now 0.1\), beta2 \(was 0.999, now 0.5\), --seed \(was 0, now 1\)\."
    with pytest.raises(UserError, match=expected):
        require_resumable(config, changed)
