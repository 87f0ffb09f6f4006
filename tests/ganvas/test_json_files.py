"""JSON files, and JSON that nobody can use."""

import json
import os

import pytest

from ganvas.errors import UserError
from ganvas.files import encode_text, write_file
from ganvas.json_files import parse_json, read_json, write_json


def test_json_round_trip_and_errors(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, "ü"]})
    assert read_json(tmp_path / "x.json", "a test") == {"a": [1, "ü"]}
    for name, text in (("list", "[1]"), ("torn", '{"a": '), ("binary", None)):
        path = tmp_path / name
        path.write_bytes(b"\xff\xfe\x00") if text is None else path.write_text(text)
        with pytest.raises(UserError, match=name):
            read_json(path, "a test")
    with pytest.raises(UserError, match=r"no such file; expected a test"):
        read_json(tmp_path / "nothing", "a test")
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "nan.json", {"a": float("nan")})  # no file that other programs cannot read


NOT_JSON = {
    "deep": (b"[" * 100_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 100_000, "nested too deeply"),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", "a number has 5000 digits"),
    "infinity": (b'{"a": Infinity}', "Infinity is not a JSON value"),
    "not a number": (b'{"a": [NaN]}', "NaN is not a JSON value"),
    "large": (b'{"a": 1e999}', "the number 1e999 is too large"),
    "half a character": (b'{"a": [{"b": "\\ud800"}]}', "half a character"),
    "half a character in a key": (b'{"\\uD83D": 1}', "half a character"),
    "latin-1": ('{"a": "ü"}'.encode("latin-1"), "is not valid JSON"),
}


@pytest.mark.parametrize(("text", "message"), NOT_JSON.values(), ids=NOT_JSON)
def test_invalid_json_is_one_message(tmp_path, text, message):
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(UserError, match=f"x.json: .*{message}.*; expected a test"):
        read_json(tmp_path / "x.json", "a test")


@pytest.mark.parametrize("text", ['{"a": 1' + "0" * 99 + ', "b": "\\ud83d\\ude00", "c": 1e308}', '[[["\\\\ud800"]]]'])
def test_unusual_valid_json(text):
    assert parse_json(text) == json.loads(text)


def test_a_large_file_is_not_read_as_json(tmp_path, monkeypatch):
    monkeypatch.setattr("ganvas.json_files.MAX_BYTES", 100)
    (tmp_path / "x.json").write_text('{"a": "' + "x" * 92 + '"}')
    with pytest.raises(UserError, match="more than 0 MiB"):
        read_json(tmp_path / "x.json", "a test")
    (tmp_path / "x.json").write_text('{"a": "' + "x" * 91 + '"}')
    assert len(read_json(tmp_path / "x.json", "a test")["a"]) == 91


def test_a_file_name_that_is_not_utf8_survives_json_and_is_an_escape_in_text(tmp_path):
    name = os.fsdecode(b"na\xefve") if os.name != "nt" else "na\udcefve"
    write_json(tmp_path / "x.json", {name: name})
    assert read_json(tmp_path / "x.json", "a test") == {name: name}
    assert encode_text(name) == b"na\\udcefve"
    write_file(tmp_path / "card.md", name)
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == "na\\udcefve"
