"""Downloads from a real server on this machine: whole, interrupted, resumed, truncated, replaced, wrong, absent."""

import dataclasses
import hashlib
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from checkpoint_files import torch_file
from higan.checkpoints import download, zoo
from higan.checkpoints.read import read
from higan.errors import CheckpointError, CorruptFileError, MissingWeightsError, UnknownFormatError

NAME = "stylegan2_church"
FILE = "stylegan2-church-config-f.pkl"
CONTENT = torch_file({"w": torch.arange(500_000).float()})


class Server(ThreadingHTTPServer):
    """Serves bytes by path; can be told to misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.drop_after: list[int] = []
        """Connections break after so many bytes of the body, one entry per request."""
        self.waits: list[tuple[int, threading.Event]] = []
        """After so many bytes it is waited for the event, one entry per request."""
        self.ranges = True
        self.validator = True
        self.length = True
        self.lie = 0
        """How much too much ``Content-Length`` announces."""
        self.wrong_part = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append((self.path, wanted))
        content = server.files.get(urllib.parse.urlsplit(self.path).path)
        if content is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
        if start >= len(content) > 0 and start:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            said = start + 1 if server.wrong_part else start
            self.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
        if server.length:
            self.send_header("Content-Length", str(len(content) - start + server.lie))
        if server.validator:
            self.send_header("ETag", tag)
        self.end_headers()
        body = content[start:]
        if server.drop_after:
            body = body[: server.drop_after.pop(0)]
        if server.waits:
            at, event = server.waits.pop(0)
            self.wfile.write(body[:at])
            assert event.wait(30)
            body = body[at:]
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    running.files = {f"/{FILE}": CONTENT}
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_download_then_cache(server, tmp_path):
    told: list[tuple[int, int | None]] = []
    path = download.pull(NAME, server.address, tmp_path / "deep" / "cache", lambda *at: told.append(at))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [at for at, _ in told] == sorted({at for at, _ in told})
    assert names(path.parent) == [FILE, f"{FILE}.sha256"]
    record = path.with_name(f"{FILE}.sha256").read_text()
    assert record == f"{hashlib.sha256(CONTENT).hexdigest()}  {FILE}\n"
    assert torch.equal(read(path).network("model").tensors["w"], torch.arange(500_000).float())
    download.pull(NAME, server.address, tmp_path / "deep" / "cache")
    assert len(server.requests) == 1


def test_mirror_may_be_the_address_of_the_file(server, tmp_path):
    assert download.pull(NAME, f"{server.address}/{FILE}", tmp_path).read_bytes() == CONTENT
    assert server.requests[0][0] == f"/{FILE}"


def test_interrupted_download_goes_on_within_one_call(server, tmp_path):
    server.drop_after = [1_000_000, 500_000]
    assert download.pull(NAME, server.address, tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert names(tmp_path) == [FILE, f"{FILE}.sha256"]


def test_interrupted_download_goes_on_at_the_next_call(server, tmp_path):
    server.drop_after = [300_000]
    with pytest.raises(MissingWeightsError, match=r"300,000 bytes are kept.*--mirror"):
        download.pull(NAME, server.address, tmp_path, attempts=1)
    assert names(tmp_path) == [f"{FILE}.partial", f"{FILE}.partial.json"]
    assert download.pull(NAME, server.address, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=300000-"


def test_file_that_changed_meanwhile_starts_over(server, tmp_path):
    server.drop_after = [300_000]
    with pytest.raises(MissingWeightsError):
        download.pull(NAME, server.address, tmp_path, attempts=1)
    changed = torch_file({"w": torch.ones(10)})
    server.files[f"/{FILE}"] = changed
    assert download.pull(NAME, server.address, tmp_path).read_bytes() == changed


def test_calls_at_once_fetch_it_once(server, tmp_path):
    """From a server that cannot resume a second transfer would start over in the file that the first is filling."""
    server.validator = False
    first, second = threading.Event(), threading.Event()
    server.waits = [(3 << 19, first), (1 << 10, second)]  # beyond the megabyte that is written at once; within it
    told: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(download.pull, NAME, server.address, tmp_path, lambda at, _: told.append(at))]
        while not told:
            time.sleep(0.01)
        calls.append(pool.submit(download.pull, NAME, server.address, tmp_path))
        time.sleep(0.5)
        first.set()
        calls[0].exception(30)
        second.set()
        assert [call.result(30).read_bytes() == CONTENT for call in calls] == [True, True]
    assert len(server.requests) == 1
    assert names(tmp_path) == [FILE, f"{FILE}.sha256"]


def test_a_lock_that_a_killed_call_left_keeps_nobody_waiting(server, tmp_path):
    (tmp_path / f".{FILE}.lock").touch()
    assert download.pull(NAME, server.address, tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == [FILE, f"{FILE}.sha256"]


def test_other_address_starts_over(server, tmp_path):
    server.drop_after = [300_000]
    with pytest.raises(MissingWeightsError):
        download.pull(NAME, server.address, tmp_path, attempts=1)
    server.files[f"/other/{FILE}"] = CONTENT
    assert download.pull(NAME, f"{server.address}/other/", tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == (f"/other/{FILE}", None)


@pytest.mark.parametrize("switch", ["ranges", "validator"])
def test_servers_that_cannot_resume(server, tmp_path, switch):
    setattr(server, switch, False)
    server.drop_after = [1_000_000]
    assert download.pull(NAME, server.address, tmp_path).read_bytes() == CONTENT


def test_server_that_sends_another_part(server, tmp_path):
    server.drop_after = [1_000_000]
    server.wrong_part = True
    with pytest.raises(MissingWeightsError, match="nobody asked for"):
        download.pull(NAME, server.address, tmp_path)
    assert not (tmp_path / FILE).exists()


def test_partial_file_longer_than_the_whole_starts_over(server, tmp_path):
    server.drop_after = [300_000]
    with pytest.raises(MissingWeightsError):
        download.pull(NAME, server.address, tmp_path, attempts=1)
    (tmp_path / f"{FILE}.partial").write_bytes(CONTENT + b"more")
    assert download.pull(NAME, server.address, tmp_path).read_bytes() == CONTENT


def test_body_shorter_than_announced_never_becomes_the_model(server, tmp_path):
    server.lie = 10
    with pytest.raises(MissingWeightsError, match="closed early"):
        download.pull(NAME, server.address, tmp_path, timeout=2.0)
    assert not (tmp_path / FILE).exists()


def test_truncated_file_of_a_server_without_lengths_is_refused_by_the_reader(server, tmp_path):
    server.length = False
    server.drop_after = [200_000]
    path = download.pull(NAME, server.address, tmp_path)
    with pytest.raises(CorruptFileError):
        read(path)


@pytest.mark.parametrize(
    "body", [b"<!DOCTYPE html><html>Quota exceeded</html>", b'{"error": "denied"}', b"\n\n<html>", b""]
)
def test_wrong_bodies_are_not_remembered(server, tmp_path, body):
    server.files[f"/{FILE}"] = body
    with pytest.raises(CheckpointError):
        download.pull(NAME, server.address, tmp_path)
    assert not (tmp_path / FILE).exists()
    assert not (tmp_path / f"{FILE}.sha256").exists()
    server.files[f"/{FILE}"] = CONTENT
    assert download.pull(NAME, server.address, tmp_path).read_bytes() == CONTENT


def test_wrong_body_says_what_to_do(server, tmp_path):
    server.files[f"/{FILE}"] = b"<html>"
    with pytest.raises(UnknownFormatError, match=r"web page.*nvlabs.*--mirror PATH_OR_ADDRESS"):
        download.pull(NAME, server.address, tmp_path)


def test_published_digest(server, tmp_path, monkeypatch):
    good = dataclasses.replace(zoo.find(NAME), sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(zoo, "MODELS", (good,))
    assert download.pull(NAME, server.address, tmp_path / "a").read_bytes() == CONTENT
    monkeypatch.setattr(zoo, "MODELS", (dataclasses.replace(good, sha256="0" * 64),))
    with pytest.raises(CorruptFileError, match=f"{hashlib.sha256(CONTENT).hexdigest()}, expected 0000.*published"):
        download.pull(NAME, server.address, tmp_path / "b")
    assert not (tmp_path / "b" / FILE).exists()


def test_digest_is_recorded_on_first_use(server, tmp_path):
    path = download.pull(NAME, server.address, tmp_path)
    path.unlink()
    server.files[f"/{FILE}"] = CONTENT[:-1] + b"\x01"
    with pytest.raises(CorruptFileError, match=r"recorded in .*\.sha256"):
        download.pull(NAME, server.address, tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("damage", [b"", b"\n", b"0" * 63 + b"  " + FILE.encode(), b"\xff" * 64])
def test_a_damaged_record_is_told_and_not_taken_for_none(server, tmp_path, damage):
    path = download.pull(NAME, server.address, tmp_path)
    record = path.with_name(f"{FILE}.sha256")
    record.write_bytes(damage)
    path.write_bytes(CONTENT[:-1] + b"\x01")
    with pytest.raises(CorruptFileError, match=rf"{FILE}\.sha256 is damaged: .* delete it, and {FILE} too"):
        download.pull(NAME, server.address, tmp_path)
    path.unlink()
    with pytest.raises(CorruptFileError, match="is damaged"):
        download.pull(NAME, server.address, tmp_path)
    assert len(server.requests) == 1
    record.unlink()
    assert download.pull(NAME, server.address, tmp_path).read_bytes() == CONTENT


def test_damage_in_the_cache_is_noticed(server, tmp_path):
    path = download.pull(NAME, server.address, tmp_path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(CorruptFileError, match="damaged"):
        download.pull(NAME, cache_dir=tmp_path)


def test_absent_file_is_not_asked_for_twice(server, tmp_path):
    with pytest.raises(MissingWeightsError, match=r"404.*origin is https://nvlabs.*pass its path"):
        download.pull("stylegan2_cat", server.address, tmp_path)
    assert len(server.requests) == 1


def test_unreachable_server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(MissingWeightsError, match="could not be fetched"):
        download.pull(NAME, "http://127.0.0.1:9", tmp_path, timeout=1.0)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("stylegan_livingroom", r"host has shut the account.*stylegan-livingroom-256x256-030000\.pkl|stylegan-livingroom.*shut"), ("pggan_bedroom", r"Open https://drive\.google\.com")],
)  # fmt: skip
def test_files_that_no_program_can_fetch(tmp_path, name, hint):
    with pytest.raises(MissingWeightsError, match=hint):
        download.pull(name, cache_dir=tmp_path)
    assert names(tmp_path) == []


def test_local_files_and_folders(tmp_path):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / FILE).write_bytes(CONTENT)
    for index, mirror in enumerate((tmp_path / "mirror", str(tmp_path / "mirror" / FILE))):
        path = download.pull(NAME, mirror, tmp_path / str(index))
        assert path.read_bytes() == CONTENT
    with pytest.raises(MissingWeightsError, match="no such file"):
        download.pull("stylegan2_cat", tmp_path / "mirror", tmp_path / "c")


def test_companions_come_along(server, tmp_path):
    weights = torch_file({"generator.gen_z.weight": torch.ones(2)})
    server.files = {
        "/m/biggan-deep-128-pytorch_model.bin": weights,
        "/m/biggan-deep-128-config.json": b'{"output_dim": 128}',
    }
    for index, mirror in enumerate((f"{server.address}/m", f"{server.address}/m/biggan-deep-128-pytorch_model.bin")):
        path = download.pull("biggan_deep128", mirror, tmp_path / str(index))
        assert read(path).network("model").config == {"output_dim": 128}
    assert download.pull("biggan_deep128", path, tmp_path / "local").is_file()
    assert (tmp_path / "local" / "biggan-deep-128-config.json").is_file()


def test_only_web_addresses_and_files(tmp_path):
    for mirror in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        with pytest.raises(MissingWeightsError, match="no such file"):
            download.pull(NAME, mirror, tmp_path)


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HIGAN_CACHE", str(tmp_path))
    assert download.default_cache() == tmp_path
    monkeypatch.delenv("HIGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert download.default_cache() == tmp_path / "x" / "higan"


@pytest.mark.skipif(sys.platform == "win32", reason="users have names there")
def test_without_a_home_there_is_no_default_cache(monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    for name in ("HIGAN_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(MissingWeightsError, match="there is no home folder to keep downloads in; name a folder with"):
        download.default_cache()


# ---- the table ----------------------------------------------------------------------------------------------------


def test_table():
    models = zoo.MODELS
    assert len({model.name for model in models}) == len(models)
    assert len({model.filename for model in models}) == len(models)
    for model in models:
        assert model.origin.startswith("https://")
        assert re.fullmatch(r"[\w.-]+", model.filename)
        assert re.fullmatch(r"[a-z0-9]+_[a-z0-9]+", model.name)
        assert model.resolution in (32, 128, 256, 512, 1024)
        assert model.licence
        if model.status == "open":
            assert (
                model.origin.endswith(model.filename.removeprefix("stylegan2-ada-"))
                or "drive.google.com" in model.origin
            )


def test_names_of_the_official_tool():
    families = {
        name: sum(model.name.startswith(f"{name}_") for model in zoo.MODELS)
        for name in ("pggan", "stylegan", "stylegan2")
    }
    assert families == {"pggan": 31, "stylegan": 17, "stylegan2": 5}  # as in its table of models
    assert zoo.find("stylegan_bedroom").filename == "karras2019stylegan-bedrooms-256x256.pkl"


def test_unknown_name():
    with pytest.raises(ValueError, match="stylegan2_church"):
        zoo.find("stylegan2-church")
    with pytest.raises(ValueError, match="higan models"):
        zoo.find("zzzzzzzz")
