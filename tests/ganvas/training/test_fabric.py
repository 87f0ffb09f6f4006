"""Compilation where torch.compile works, and where it does not."""

import pytest
import torch
from lightning_fabric import Fabric

from ganvas.nn.cpu_kernels.instance_norm import CpuInstanceNorm2d
from ganvas.nn.resnet import ResNetGenerator
from ganvas.training.fabric import can_compile, set_up


def test_set_up_optimizes_for_a_cpu_in_channels_last_memory():
    network = ResNetGenerator(base_channels=2, num_blocks=1)
    set_up(Fabric(accelerator="cpu"), network)
    assert sum(isinstance(module, CpuInstanceNorm2d) for module in network.modules()) == 7
    assert network.layers[1].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def messages(caplog):
    """Return the messages of our own logger so far."""
    return lambda: [record.message for record in caplog.records if record.name == "ganvas"]


def test_compile_error_is_logged_once(monkeypatch, messages):
    def broken(*arguments, **options):
        raise RuntimeError("no C++ compiler\nfound in PATH")

    monkeypatch.setattr(torch, "compile", broken)
    assert not can_compile("cpu")
    (message,) = messages()
    assert (
        message == "--compile: torch.compile does not work here (no C++ compiler found in PATH). Continuing without it."
    )


def test_error_of_the_first_call_is_logged(monkeypatch, messages):
    # Compilation begins when the network is first called.

    def backend(graph, inputs):
        raise OSError("disk full")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend=backend))
    assert not can_compile("cpu")
    assert len(messages()) == 1
    assert "disk full" in messages()[0]


def test_nothing_is_logged_where_compilation_works(monkeypatch, messages):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend="eager"))
    assert can_compile("cpu")
    assert messages() == []
