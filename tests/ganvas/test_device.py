"""What "auto" means on each kind of machine."""

import pytest
import torch

from ganvas.device import choose_device, choose_precision
from ganvas.errors import UserError


def pretend(monkeypatch, *, cuda=False, mps=False, capability=(8, 0), avx512=False, amx=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(
    ("available", "chosen"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_is_the_fastest_device(monkeypatch, available, chosen):
    pretend(monkeypatch, **available)
    assert choose_device("auto") == chosen
    assert choose_device("cpu") == "cpu"


def test_an_unavailable_device_is_refused(monkeypatch):
    pretend(monkeypatch)
    with pytest.raises(UserError, match=r"--device cuda: torch finds no such device.*--device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("device", "available", "chosen"),
    [
        ("cuda", {"capability": (8, 0)}, "bf16"),
        ("cuda", {"capability": (7, 5)}, "fp32"),
        ("cpu", {"avx512": True}, "bf16"),
        ("cpu", {"amx": True}, "bf16"),
        ("cpu", {}, "fp32"),
        ("mps", {"avx512": True}, "fp32"),
    ],
)
def test_auto_is_bf16_where_it_is_multiplied_natively(monkeypatch, device, available, chosen):
    pretend(monkeypatch, **available)
    assert choose_precision("auto", device) == chosen
    assert [choose_precision(asked, device) for asked in ("fp32", "bf16")] == ["fp32", "bf16"]
