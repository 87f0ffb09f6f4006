import json
import os
import time
from urllib.parse import quote

import pytest

from ganvas.inference.web.files import PageFiles


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a&b 'é'"


def add(folder, name, size, age):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_the_folder_is_hidden_however_it_is_written(folder):
    folder.mkdir()
    files = PageFiles(folder, 10, 10)
    in_html = json.dumps(f"{folder}/x", ensure_ascii=False).replace("&", "\\u0026").replace("'", "\\u0027")
    for written in (f"{folder}/x", json.dumps(f"{folder}/x"), quote(f"{folder}/x"), in_html):
        assert files.hide(written.encode()).strip(b'"') == b"/files/x"


def test_old_files_are_removed_and_the_oldest_while_there_are_too_many(folder):
    old = add(folder, "r1/a", 1, age=100)
    older, newer, newest = (add(folder, f"r2/{age}", 10, age) for age in (30, 20, 10))
    stray = add(folder, "half-an-upload", 1, age=100)
    files = PageFiles(folder, 20, 50)
    files.make_room()
    assert not old.parent.exists()
    assert not stray.exists()
    assert [path.exists() for path in (older, newer, newest)] == [False, True, True]


def test_examples_are_never_removed_nor_counted(folder):
    example = add(folder, "examples/a", 100, age=100)
    files = PageFiles(folder, 20, 50)
    files.keep()
    upload = add(folder, "r/a", 20, age=10)
    files.make_room()
    assert example.exists()
    assert upload.exists()
