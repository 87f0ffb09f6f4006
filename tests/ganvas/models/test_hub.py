"""Models to the hub and from it, against a stand-in of its HTTP layout on 127.0.0.1."""

import base64
import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants

import ganvas
from dcgan.__main__ import main as dcgan_main
from dcgan.model import DigitModelConfig, build, load_sampler, save_sampler
from ganvas.data.encode import write_image
from ganvas.errors import UserError
from ganvas.models import hub
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, build_generator, save_model
from pix2pix.__main__ import main as pix2pix_main

ROOT = Path(__file__).parents[3]
# huggingface_hub's own call
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
CARD = '# map → terrain\n\n- Data: earth\n\n```python\nganvas.load("this folder")\n```\n'


class Hub:
    """Repositories in memory: what huggingface_hub asks of the real one when it fetches a folder or commits to one."""

    def __init__(self):
        self.repositories, self.private, self.asked, self.large = {}, set(), [], {}
        self.token = "hf_right"
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, name):
        """Name the state of a repository, as a commit's digits do."""
        state = repr(sorted(self.repositories[name].items()))
        return hashlib.sha1(state.encode()).hexdigest()

    def answer(self, method, path, headers, body):
        """Return status, headers and body."""
        self.asked.append((method, path))
        writes = re.fullmatch(r"/api/(repos/create|models/.*/(preupload|commit)/main)|.*/objects/batch", path)
        if writes and headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"X-Error-Message": "Invalid credentials"}, b""
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(name, {})
            self.private |= {name} if asked.get("private") or asked.get("visibility") == "private" else set()
            return self._json({"url": f"{self.address}/{name}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.startswith("/large/"):
            self.large[path.removeprefix("/large/")] = body
            return 200, {}, b""
        if found := re.fullmatch(r"/(?:api/models/)?([\w.-]+/[\w.-]+?)(?:\.git/info/lfs)?/(\w.*)", path):
            name, what = found.groups()
            if name not in self.repositories:
                return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
            return self._of_repository(name, what, body)
        return 404, {}, b""

    def _of_repository(self, name, what, body):
        files = self.repositories[name]
        if what.startswith("preupload/"):
            modes = {True: "lfs", False: "regular"}
            asked = [entry["path"] for entry in json.loads(body)["files"]]
            entries = [
                {"path": path, "uploadMode": modes[path.endswith("tensors")], "shouldIgnore": False} for path in asked
            ]
            return self._json({"files": entries})
        if what == "objects/batch":
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.address}/large/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if what.startswith("commit/"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    files[line["value"]["path"]] = self.large[line["value"]["oid"]]
            commit = self.commit(name)
            return self._json({"commitUrl": f"{self.address}/{name}/commit/{commit}", "commitOid": commit})
        commit = self.commit(name)
        if what.startswith("revision/"):
            if what not in ("revision/main", f"revision/{commit}"):
                return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b""
            return self._json({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]})
        if what.startswith("tree/"):
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            return self._json(entries)
        path = what.removeprefix(f"resolve/{commit}/")
        if path not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        headers = {"ETag": f'"{hashlib.sha1(files[path]).hexdigest()}"', "X-Repo-Commit": commit}
        return 200, headers, files[path]

    @staticmethod
    def _json(values):
        return 200, {"Content-Type": "application/json"}, json.dumps(values).encode()

    def _handler(self):
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def _body(self):
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                pieces = []
                while length := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(length))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)

            def _answer(self):
                body = self._body()
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, extra, content = stand_in.answer(self.command, self.path.partition("?")[0], headers, body)
                self.send_response(status)
                for name, value in {**extra, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = _answer

        return Handler


def settings(monkeypatch, address, cache):
    for name, value in {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": str(cache / "no-token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    server = Hub()
    settings(monkeypatch, server.address, tmp_path / "cache")
    yield server
    huggingface_hub.close_session()
    server.close()


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    spec = NetworkSpec("unet", {"base_channels": 4, "num_levels": 2}, "map", "terrain")
    config = ModelConfig("pix2pix", {"a2b": spec}, Preprocessing(3, 3, 32, True))
    sample = np.zeros((4, 4, 3), np.uint8)
    save_model(tmp_path / "run" / "model", config, {"a2b": build_generator(spec)}, CARD, sample)
    return tmp_path / "run"


@pytest.fixture
def pix2pix(in_process):
    return in_process(pix2pix_main)


def noise(shape=(32, 32, 3)):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_a_model_is_pushed_and_loaded(pix2pix, stand_in, model, tmp_path):
    code, out, err = pix2pix("push", model, "someone/earth", "--license", "mit", "--json")
    assert code == 0, err
    assert json.loads(out) == {"pushed": f"{stand_in.address}/someone/earth"}
    files = stand_in.repositories["someone/earth"]
    assert set(files) == {"config.json", "model.safetensors", "README.md", "sample.png"}
    for name in set(files) - {"README.md"}:
        assert files[name] == (model / "model" / name).read_bytes()
    assert (model / "model" / "README.md").read_text() == CARD
    write_image(tmp_path / "in" / "x.png", noise())
    code, _, err = pix2pix("translate", "hub:someone/earth", tmp_path / "in", tmp_path / "out")
    assert code == 0, err
    here, there = (ganvas.load(path).translate(noise()) for path in (model, "hub:someone/earth"))
    assert np.array_equal(here, there)
    assert stand_in.private == set()


def test_the_card_on_the_hub_has_metadata_and_the_name(pix2pix, stand_in, model):
    assert pix2pix("push", model / "model", "someone/earth", "--license", "cc-by-4.0", "--private")[0] == 0
    card = stand_in.repositories["someone/earth"]["README.md"].decode()
    metadata = "library_name: ganvas\npipeline_tag: image-to-image\ntags: [ganvas, pix2pix]\nlicense: cc-by-4.0"
    assert card == f"---\n{metadata}\n---\n\n" + CARD.replace("this folder", "hub:someone/earth")
    assert stand_in.private == {"someone/earth"}


def test_from_python_as_by_the_command(pix2pix, stand_in, model):
    assert ganvas.push_to_hub(str(model), "someone/earth", license="mit") == f"{stand_in.address}/someone/earth"
    assert stand_in.private == set()
    assert pix2pix("push", model, "someone/same", "--license", "mit")[0] == 0
    here, there = (stand_in.repositories[f"someone/{name}"] for name in ("earth", "same"))
    assert {**here, "README.md": here["README.md"].replace(b"someone/earth", b"someone/same")} == there
    assert np.array_equal(ganvas.load("hub:someone/earth").translate(noise()), ganvas.load(model).translate(noise()))
    ganvas.push_to_hub(model, "someone/own", private=True)
    assert stand_in.private == {"someone/own"}
    (model / "model" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="is damaged"):
        ganvas.push_to_hub(model, "someone/earth")


def test_metadata_of_a_card_are_kept(pix2pix, stand_in, model):
    own = "---\nlicense: mit\n---\n" + CARD
    (model / "model" / "README.md").write_text(own)
    assert pix2pix("push", model, "someone/earth")[0] == 0
    assert stand_in.repositories["someone/earth"]["README.md"].decode().startswith("---\nlicense: mit\n---\n# map")
    code, _, err = pix2pix("push", model, "someone/earth", "--license", "mit")
    assert (code, "the card has metadata already" in err) == (2, True)


def test_only_the_model_folders_own_files_are_fetched(stand_in, model):
    files = {path.name: path.read_bytes() for path in (model / "model").iterdir()}
    stand_in.repositories["someone/earth"] = files | {"pytorch_model.bin": b"code", "x.pkl": b"code", "big.zip": b""}
    folder = hub.fetch("someone/earth", ["config.json", "model.safetensors"])
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not [path for _, path in stand_in.asked if path.endswith((".bin", ".pkl", ".zip"))]


def test_a_revision_is_respected(stand_in, model):
    stand_in.repositories["someone/earth"] = {path.name: path.read_bytes() for path in (model / "model").iterdir()}
    commit = stand_in.commit("someone/earth")
    assert ganvas.load(f"hub:someone/earth@{commit}").config.kind == "pix2pix"
    with pytest.raises(UserError, match=r"hub:someone/earth@v9: the model has no such branch"):
        ganvas.load("hub:someone/earth@v9")


def one_message(result, *words):
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.count("error:") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_a_name_that_does_not_exist(pix2pix, stand_in, tmp_path):
    write_image(tmp_path / "x.png", noise())
    for name in ("nobody/nothing", "someone/private"):
        result = pix2pix("translate", f"hub:{name}", tmp_path / "x.png", tmp_path / "y.png")
        one_message(result, f"hub:{name}: there is no such model", "or it is private")
    assert not (tmp_path / "y.png").exists()


@pytest.mark.slow
def test_a_process_of_its_own_asks_the_hub_that_the_environment_names(stand_in, tmp_path):
    write_image(tmp_path / "x.png", noise())
    command = [sys.executable, "-m", "pix2pix", "translate", "hub:nobody/nothing", str(tmp_path / "x.png"), "y.png"]
    ours = {"HF_ENDPOINT": stand_in.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **ours}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    one_message((result.returncode, result.stdout, result.stderr), "there is no such model", stand_in.address)


@pytest.mark.slow
def test_serve_loads_a_model_from_the_hub(stand_in, model, tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed (extra web)")
    stand_in.repositories["someone/earth"] = {path.name: path.read_bytes() for path in (model / "model").iterdir()}
    ours = {"HF_ENDPOINT": stand_in.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "pix2pix", "serve", "hub:someone/earth", "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **ours}, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.terminate()
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["", "earth", "a/b/c", "a b/c", "../x", "someone/"])
def test_invalid_names_are_not_requested(stand_in, name):
    with pytest.raises(UserError, match=r"not a valid name. Give OWNER/NAME"):
        ganvas.load(f"hub:{name}")
    assert stand_in.asked == []


def test_without_a_network_only_cached_models_load(stand_in, pix2pix, model, tmp_path, monkeypatch):
    stand_in.repositories["someone/earth"] = {path.name: path.read_bytes() for path in (model / "model").iterdir()}
    before = ganvas.load("hub:someone/earth").translate(noise())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    settings(monkeypatch, nowhere, tmp_path / "cache")
    assert np.array_equal(ganvas.load("hub:someone/earth").translate(noise()), before)
    write_image(tmp_path / "x.png", noise())
    one_message(
        pix2pix("translate", "hub:someone/else", tmp_path / "x.png", tmp_path / "y"), "cannot be reached", nowhere
    )
    one_message(pix2pix("push", model, "someone/earth"), "cannot be reached", nowhere)


def test_a_token_that_may_not_write(pix2pix, stand_in, model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    one_message(pix2pix("push", model, "someone/earth"), "denies write access", "hf auth login")
    assert stand_in.repositories == {}


def test_without_the_extra_the_message_names_it(pix2pix, model, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    one_message(pix2pix("push", model, "someone/earth"), "pip install 'ganvas[hub]'")
    with pytest.raises(UserError, match=r"needs huggingface_hub, which is not installed: pip install 'ganvas\[hub\]'"):
        ganvas.load("hub:someone/earth")


def with_digest(files):
    """Let config.json agree with weights that were changed."""
    config = json.loads(files["config.json"]) | {
        "weights_sha256": hashlib.sha256(files["model.safetensors"]).hexdigest()
    }
    return files | {"config.json": json.dumps(config).encode()}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (b"\xff" * 100, "model.safetensors: is damaged"),  # a header longer than the file
        ((5).to_bytes(8, "little") + b"no js", "model.safetensors: is damaged"),
        ((2).to_bytes(8, "little") + b"{}", "comes from another architecture"),
        (b"\x80\x04cos\nsystem\n(S'touch ran'\ntR.", "model.safetensors: is damaged"),  # a pickle
        (b"", "model.safetensors: is damaged"),
    ],
    ids=["long", "no-json", "empty-header", "pickle", "empty"],
)
def test_weights_with_a_wrong_header(pix2pix, stand_in, model, tmp_path, monkeypatch, weights, message):
    monkeypatch.chdir(tmp_path)
    files = {path.name: path.read_bytes() for path in (model / "model").iterdir()} | {"model.safetensors": weights}
    write_image(tmp_path / "x.png", noise())
    stand_in.repositories |= {"someone/digest": files, "someone/header": with_digest(files)}
    one_message(pix2pix("translate", "hub:someone/digest", "x.png", "y.png"), "model.safetensors: is")
    one_message(pix2pix("translate", "hub:someone/header", "x.png", "y.png"), message)
    assert not (tmp_path / "ran").exists()


def test_folders_that_cannot_be_pushed(pix2pix, in_process, stand_in, model, tmp_path):
    one_message(pix2pix("push", tmp_path / "nowhere", "someone/earth"), "there is no such folder")
    one_message(in_process(dcgan_main)("push", model, "someone/earth"), "is a model of pix2pix")
    one_message(pix2pix("push", model, "earth"), "not a valid name")
    one_message(pix2pix("push", model, "someone/earth", "--license", "My own"), "license 'My own': give the hub's")
    checkpoint = model / "checkpoints" / "step-00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "checkpoint.json").write_text("{}")
    one_message(pix2pix("push", checkpoint, "someone/earth"), "is a checkpoint")
    card = model / "model" / "README.md"
    card.write_bytes(b"\xff")
    one_message(pix2pix("push", model, "someone/earth"), f"{card}: cannot be read", "Write a model card")
    card.unlink()
    one_message(pix2pix("push", model, "someone/earth"), f"{card}: cannot be read", "Write a model card")
    (model / "model" / "model.safetensors").write_bytes(b"cut")
    one_message(pix2pix("push", model, "someone/earth"), "is damaged")
    assert stand_in.asked == []


def test_a_digit_model_is_pushed_and_loaded(in_process, stand_in, tmp_path):
    config = DigitModelConfig("dcgan", 28, 1, 0, 8, "normal", "batch", 4, 0, "signed", (), "digits", "")
    save_sampler(tmp_path / "model", config, build(config)[0], "# digits\n\ndcgan sample THIS_FOLDER digits.png\n")
    code, out, err = in_process(dcgan_main)("push", tmp_path / "model", "someone/digits")
    assert code == 0, err
    assert out.splitlines() == [f"{stand_in.address}/someone/digits", "To use it: hub:someone/digits"]
    card = stand_in.repositories["someone/digits"]["README.md"].decode()
    assert "pipeline_tag: unconditional-image-generation" in card
    assert "dcgan sample hub:someone/digits digits.png" in card
    here, there = (load_sampler(path).sample(3, seed=0) for path in (tmp_path / "model", "hub:someone/digits"))
    assert torch.equal(here, there)
    with pytest.raises(UserError, match="is a model of dcgan"):
        ganvas.push_to_hub(tmp_path / "model", "someone/other")
    ganvas.push_to_hub(tmp_path / "model", "someone/other", load=load_sampler)
    assert set(stand_in.repositories["someone/other"]) == set(stand_in.repositories["someone/digits"])
