"""Tensors in safetensors files."""

import os

import pytest
import torch

from ganvas.errors import UserError
from ganvas.models.tensors import load_tensors, save_tensors


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_tensors_are_written_atomically(tmp_path):
    save_tensors(tmp_path / "w.safetensors", {"w": torch.zeros(2)})
    (tmp_path / "plain").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_tensors_in_any_layout(tmp_path):
    weights = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_tensors(tmp_path / "x", {"w": weights, "half": weights.bfloat16()})
    loaded = load_tensors(tmp_path / "x")
    assert torch.equal(loaded["w"], weights)
    assert loaded["half"].dtype == torch.bfloat16


@pytest.mark.parametrize("content", [None, b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at al", b"\xff" * 100])
def test_invalid_tensor_files(tmp_path, content):
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="is missing" if content is None else "is damaged"):
        load_tensors(tmp_path / "x")


def test_a_long_reason_is_shortened(tmp_path):
    header = ('{"w": "' + "x" * 5000 + '"}').encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match=r"is damaged \(.*x…\)") as error:
        load_tensors(tmp_path / "x")
    assert len(str(error.value)) < 500


def test_a_disk_that_is_full_for_tensors(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        save_tensors(tmp_path / "nowhere" / "x", {"w": torch.zeros(1)})
