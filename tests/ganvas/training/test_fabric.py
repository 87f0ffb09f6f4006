"""What "auto" means, and what happens where the machine cannot do what is asked for."""

import pytest
import torch

from ganvas.errors import UserError
from ganvas.training.fabric import can_compile, choose_device, choose_precision


def pretend(monkeypatch, *, cuda=False, mps=False, capability=(8, 0), avx512=False, amx=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(
    ("there", "chosen"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_takes_the_fastest_device_there_is(monkeypatch, there, chosen):
    pretend(monkeypatch, **there)
    assert choose_device("auto") == chosen
    assert choose_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    pretend(monkeypatch)
    with pytest.raises(UserError, match=r"--device cuda: this machine has none.*take cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("device", "there", "chosen"),
    [
        ("cuda", {"capability": (8, 0)}, "bf16"),
        ("cuda", {"capability": (7, 5)}, "fp32"),
        ("cpu", {"avx512": True}, "bf16"),
        ("cpu", {"amx": True}, "bf16"),
        ("cpu", {}, "fp32"),
        ("mps", {"avx512": True}, "fp32"),
    ],
)
def test_auto_is_bf16_where_it_is_multiplied_natively(monkeypatch, device, there, chosen):
    pretend(monkeypatch, **there)
    assert choose_precision("auto", device) == chosen
    assert [choose_precision(asked, device) for asked in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_where_torch_cannot_compile_it_is_said_once_with_the_reason(monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no C++ compiler\nfound in PATH")

    monkeypatch.setattr(torch, "compile", broken)
    said = []
    assert not can_compile("cpu", said.append)
    assert said == ["--compile: torch.compile does not work here (no C++ compiler found in PATH). Going on without it."]


def test_a_failure_in_the_first_run_of_what_was_compiled_counts_too(monkeypatch):
    """Compilation begins when the network is first called."""

    def backend(graph, inputs):
        raise OSError("disk full")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend=backend))
    said = []
    assert not can_compile("cpu", said.append)
    assert len(said) == 1
    assert "disk full" in said[0]


def test_nothing_is_said_where_it_works(monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend="eager"))
    said = []
    assert can_compile("cpu", said.append)
    assert said == []
