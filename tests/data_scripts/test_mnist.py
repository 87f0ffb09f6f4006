import struct

import numpy as np
import pytest

from data_scripts.__main__ import main

SIZES = {"train": 4, "t10k": 2}


@pytest.fixture
def files(tmp_path):
    for part, count in SIZES.items():
        pictures, labels = np.zeros((count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8)
        for name, array in (("images-idx3", pictures), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())
    return tmp_path


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_takes_and_checks_files_that_are_there(files, name, capsys):
    assert main([name, "--out", str(files)]) == 0
    out, err = capsys.readouterr()
    counts, command = out.splitlines()
    assert err == "", "nothing is downloaded, so no licence is told"
    assert counts == f"{files}: 4 training and 2 test pictures, already there"
    assert command == f"dcgan train --data {name} --data-root {files} --out RUN"


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_names_the_file_that_is_cut_short(files, file, capsys):
    path = files / file
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["mnist", "--out", str(files)]) == 2
    assert f"error: {path}: is cut short" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "loader"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_without_network_the_way_without_is_named(tmp_path, name, loader, capsys, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(getattr(datasets, loader), "mirrors", ["http://127.0.0.1:9/"])  # port 9 discards, or is closed
    monkeypatch.setattr("ganvas.data.digits.TIMEOUT", 1)
    assert main([name, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    licence = {"mnist": "CC BY-SA 3.0", "fashion-mnist": "Zalando SE: MIT"}[name]
    assert error.index(licence) < error.index(f"{name} cannot be downloaded")
    assert "--data mnist5k" in error
