"""The fuzzer finds each kind of fault and no other, repeats its cases, and mutates what checksums protect."""

import json
import os
import random
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.fuzz import ENVIRONMENT, Options, Result, describe, main
from benchmarks.fuzzing import mutators
from benchmarks.fuzzing.mutators import (
    GENERIC,
    join_png,
    json_token,
    npy_header,
    png_chunk,
    safetensors_header,
    tar_header,
    tiff_link,
)
from benchmarks.fuzzing.outcome import Outcome

ROOT = Path(__file__).parents[2]

# A process of its own, since it forks and pytest's has threads. Readers with a fault each take the real ones' place.
SCRIPT = """
import json, os, signal, time
from benchmarks.fuzz import Options, fuzz
from benchmarks.fuzzing import worker
from ganvas.errors import UserError

def refuse(text):
    raise UserError(text)

def hide_memory_error(folder, name):
    try:
        bytes(2**31)
    except MemoryError:
        refuse(f"{name}: too large.")

readers = {
    "ZeroDivisionError": lambda folder, name: 1 / 0,
    "message without a file": lambda folder, name: refuse("it is broken"),
    "message too long": lambda folder, name: refuse(name * 1000),
    "memory": hide_memory_error,
    "time-out": lambda folder, name: [None for _ in iter(int, 1)],
    "crash by SIGSEGV": lambda folder, name: os.kill(os.getpid(), signal.SIGSEGV),
    "outside of its folder": lambda folder, name: (folder.parent / "outside.tif").read_bytes(),
    "prints too much": lambda folder, name: print("x" * 2**21),
    "refused": lambda folder, name: refuse(f"{name}: cannot be decoded."),
    "read": lambda folder, name: (folder / "out").write_bytes(bytes(2**20)),
}

real, worker.CPU_SECONDS, worker.WALL_SECONDS = worker.READERS.copy(), 0, 10
fuzzer = worker.Worker()
kinds = {}
for seed, (kind, reader) in enumerate(readers.items()):
    worker.READERS.update(dict.fromkeys(real, reader))
    outcome = fuzzer.run(seed)
    kinds[kind] = [outcome.kind, outcome.seed == seed]
worker.READERS.update(real)
worker.CPU_SECONDS, worker.WALL_SECONDS = 4, 60
mutated = worker.mutate
worker.mutate = lambda rng, kind, content, other: (content, [])
valid = [fuzzer.run(seed) for seed in range(120)]
worker.mutate = mutated
cases = [fuzzer.case(seed) for seed in range(300)]
again = [fuzzer.case(seed) for seed in range(300)]
worker.Worker = lambda only, keep: fuzzer
result = fuzz(Options(cases=40, seed=3, only=("npy",)))
print(json.dumps({
    "kinds": kinds,
    "valid": [[each.kind, each.reader] for each in valid],
    "same": all(a.files == b.files and a.steps == b.steps for a, b in zip(cases, again)),
    "changed": sum(case.files != case.sample.files for case in cases),
    "formats": sorted(fuzzer.samples),
    "ran": result.cases,
    "npy": sum(fuzzer.format(seed) == "npy" for seed in range(3_000_000, 3_000_040)),
}))
"""


@pytest.fixture(scope="module")
def tried():
    if not sys.platform.startswith("linux"):
        pytest.skip("forks, and limits the memory of a process")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_each_kind_of_fault_is_reported_as_such(tried):
    assert tried["kinds"] == {kind: [kind, True] for kind in tried["kinds"]}


@pytest.mark.slow
def test_valid_files_are_read_or_refused_with_a_message(tried):
    assert len(tried["valid"]) == 120
    refused = [reader for kind, reader in tried["valid"] if kind != "read"]
    # Not every reader takes every image (the ONNX runner has no 16 bits in color).
    assert set(refused) <= {"onnx", "tiles", "translate", "train", "unpack"}
    assert len(refused) < 30


@pytest.mark.slow
def test_cases_are_repeatable_and_changed(tried):
    assert tried["same"]
    assert tried["changed"] > 270  # of 300; a few mutations happen to change nothing


@pytest.mark.slow
def test_only_the_chosen_formats_are_run(tried):
    assert 0 < tried["npy"] < 40
    assert tried["ran"] == {"npy": tried["npy"]}
    assert {"bmp", "jpeg", "npy", "png", "tiff", "webp", "onnx", "pth", "safetensors", "shard"} < set(tried["formats"])
    assert {"archive", "mnist", "metrics.jsonl", "dataset.json", "checkpoint", "model folder"} < set(tried["formats"])


@pytest.mark.parametrize("mutator", GENERIC)
def test_generic_mutators_are_repeatable(mutator):
    content, other = bytes(range(200)), bytes(100)
    results = [mutator(random.Random(seed), content, other) for seed in range(20)]
    assert sum(result != content for result in results) >= 18
    assert results[3] == mutator(random.Random(3), content, other)


def test_png_chunks_keep_valid_checksums(monkeypatch):
    monkeypatch.setattr(mutators, "bomb", lambda wbits: b"packed")
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    png = join_png([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(20))), (b"IEND", b"")])
    for seed in range(30):
        changed, at, types = png_chunk(random.Random(seed), png, png), 8, []
        while at < len(changed):
            (length,) = struct.unpack_from(">I", changed, at)
            body = changed[at + 4 : at + 8 + length]
            assert struct.unpack_from(">I", changed, at + 8 + length)[0] == zlib.crc32(body)
            types.append(body[:4])
            at += 12 + length
        assert types


def test_tar_headers_keep_valid_checksums():
    header = tarfile.TarInfo("x.jpg")
    header.size = 3
    content = header.tobuf(tarfile.USTAR_FORMAT) + b"abc".ljust(512, b"\0") + bytes(1024)
    for seed in range(30):
        block = bytearray(tar_header(random.Random(seed), content, content)[:512])
        stored = int(bytes(block[148:154]), 8)
        block[148:156] = b" " * 8
        assert stored == sum(block)


def test_headers_of_tensors_and_arrays_keep_their_lengths():
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    tensors = struct.pack("<Q", len(header)) + header + bytes(4)
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
    array = b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + bytes(24)
    lengths = []
    for seed in range(40):
        changed = safetensors_header(random.Random(seed), tensors, tensors)
        lengths.append(struct.unpack_from("<Q", changed)[0] == len(changed) - 8 - 4)
        changed = npy_header(random.Random(seed), array, array)
        form, start = ("<H", 10) if changed[6] == 1 else ("<I", 12)
        assert struct.unpack_from(form, changed, 8)[0] == len(changed) - start - 24
    assert 20 < sum(lengths) < 40  # in the others the length itself was changed


def test_tiff_directories_get_links_that_lead_back():
    directory = struct.pack("<HHHIII", 1, 256, 4, 1, 8, 0)
    tiff = b"II*\0" + struct.pack("<I", 8) + directory + bytes(40)
    ends = {struct.unpack_from("<I", tiff_link(random.Random(seed), tiff, tiff), 22)[0] for seed in range(60)}
    assert 8 in ends  # the directory's own place
    assert len(ends) > 3


def test_json_tokens_are_replaced_one_by_one():
    content = b'{"a": [1, "x"], "b": {}, "c": null}'
    changed = {json_token(random.Random(seed), content, content) for seed in range(60)}
    assert len(changed) > 30
    assert any(text.startswith(b'{"a": [') and text.endswith(b', "b": {}, "c": null}') for text in changed)


def outcome(seed, kind="KeyError", frame="ganvas/a.py:1 f", label="png"):
    return Outcome(seed, label, "read", "x.png: flip_bits", kind, frame)


def test_findings_of_the_same_kind_and_line_are_merged():
    result = Result()
    for seed in range(7):
        result.add(outcome(seed))
    result.add(outcome(7, frame="ganvas/a.py:2 f"))
    result.add(outcome(8, kind="read"))
    result.add(outcome(9, kind="refused", label="jpeg"))
    counts = [(each["count"], each["seeds"]) for each in result.summary()["findings"]]
    assert counts == [(7, [0, 1, 2, 3, 4]), (1, [7])]
    table = describe(result)
    assert "10 cases" in table
    assert "| png | 9 | 0 | 2 | 0, 7 |" in table
    assert "| jpeg | 1 | 1 | 0 |  |" in table
    assert "KeyError in ganvas/a.py:1 f (7 cases: 0, 1, 2, 3, 4)" in table


@pytest.mark.parametrize(
    ("kinds", "is_complete", "code"),
    [(["read", "refused"], True, 0), (["read", "KeyError"], True, 1), (["read", "KeyError"], False, 2)],
)
def test_exit_codes(kinds, is_complete, code, monkeypatch, capsys):
    def pretend(options):
        assert options == Options(cases=2, json=True)
        result = Result(seconds=1.0, is_complete=is_complete)
        for seed, kind in enumerate(kinds):
            result.add(outcome(seed, kind))
        return result

    monkeypatch.setattr(fuzz, "fuzz", pretend)
    monkeypatch.setattr(sys, "platform", "linux")
    assert main(["--cases", "2", "--json"]) == code
    printed = json.loads(capsys.readouterr().out)
    assert printed["cases"] == {"png": 2}
    assert [each["seeds"] for each in printed["findings"]] == [[1]] * ("KeyError" in kinds)
