"""The downloader, against a server on this machine that misbehaves."""

import hashlib
import http.server
import io
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from genjax import data
from genjax.data import download, originals

BODY = bytes(range(256)) * 16000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Remembers the pages it was asked for."""

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), Pages)
        self.root, self.seen, self.stop = root, [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Pages(http.server.BaseHTTPRequestHandler):
    """``/good``, ``/once-bad``, ... as the tests below say; ``/file/...`` serves ``root``."""

    protocol_version = "HTTP/1.0"
    server: Server

    def do_GET(self):
        self.server.seen.append(self.path)
        again = self.server.seen.count(self.path) > 1
        if self.path.startswith("/redirect/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/redirect/"))
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        else:
            self.send_body(again)

    def send_body(self, again):
        path, body = self.path, BODY
        if path.startswith("/file/"):
            body = (self.server.root / path.removeprefix("/file/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        short = path in ("/short", "/stall") or (path == "/once-short" and not again)
        wrong = path == "/wrong" or (path == "/once-wrong" and not again)
        self.wfile.write(body[: len(body) // 2] if short else body[:-1] + b"?" if wrong else body)
        if path == "/stall" and not again:
            self.wfile.flush()
            self.server.stop.wait(30)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "served") as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.stop.set()
        running.shutdown()


def open_any(url, seconds):
    return urllib.request.urlopen(url, timeout=seconds)


def fetch(server, page, path, open_url=open_any):
    download.fetch(f"{server.url}/{page}", path, SHA256, open_url)


def test_right_bytes_arrive_in_new_folders_and_nothing_else(server, tmp_path):
    path = tmp_path / "a" / "b" / "file.gz"
    fetch(server, "good", path)
    assert path.read_bytes() == BODY and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("page", ["once-short", "once-wrong"])
def test_a_bad_answer_is_tried_again(server, tmp_path, page):
    fetch(server, page, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY and server.seen == [f"/{page}"] * 2


@pytest.mark.parametrize(
    "page, reason", [("wrong", "expected SHA-256 .* got"), ("short", "expected SHA-256|IncompleteRead")]
)
def test_bad_bytes_never_arrive(server, tmp_path, page, reason):
    (tmp_path / "file").write_bytes(b"what was there")
    with pytest.raises(data.DataError, match=f"{page}: ({reason})"):
        fetch(server, page, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"what was there"
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and len(server.seen) == download.ATTEMPTS


def test_a_refusal_is_not_repeated(server, tmp_path):
    with pytest.raises(data.DataError, match="404"):
        fetch(server, "missing", tmp_path / "file")
    assert server.seen == ["/missing"] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1/good"])
def test_redirects_lead_to_https_only(server, tmp_path, target):
    opener = urllib.request.build_opener(download.HttpsRedirects())
    with pytest.raises(data.DataError, match="only https|not allowed"):
        fetch(server, f"redirect/{target}", tmp_path / "file", lambda url, seconds: opener.open(url, timeout=seconds))
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_only_https_is_opened(tmp_path, url):
    with pytest.raises(data.DataError, match="only https"):
        download.fetch(url, tmp_path / "file", SHA256)
    with pytest.raises(urllib.error.URLError, match="only https"):
        download.open_https(url, 1.0)
    assert "only https" in download.unreachable(url)


def test_silence_counts_as_unreachable_after_the_patience(monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    released = threading.Event()
    start = time.monotonic()
    reason = download.unreachable("https://example.org", lambda url, seconds: io.BytesIO(bytes(released.wait(20))))
    released.set()
    assert "no answer" in reason and time.monotonic() - start < 2


def test_what_can_be_opened_is_reachable(server):
    assert download.unreachable(f"{server.url}/good", open_any) == ""
    assert "404" in download.unreachable(f"{server.url}/missing", open_any)


def test_folders_that_cannot_be_written_are_data_errors(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(data.DataError, match="file"):
        fetch(server, "good", tmp_path / "file" / "below")


KILLED = """
import pathlib, sys, urllib.request
from genjax.data import download
download.fetch(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], lambda url, seconds: urllib.request.urlopen(url))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_killed_download_leaves_nothing_that_counts_and_the_next_succeeds(server, tmp_path):
    path, folder = tmp_path / "new" / "file", tmp_path / "new"
    command = [sys.executable, "-c", KILLED, f"{server.url}/stall", str(path), SHA256]
    with subprocess.Popen(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}) as process:
        for _ in range(600):
            if folder.is_dir() and any(part.stat().st_size for part in folder.iterdir()):
                break
            time.sleep(0.05)
        process.kill()
    assert [file.name[0] for file in folder.iterdir()] == ["."] and not path.exists()
    fetch(server, "good", path)
    assert path.read_bytes() == BODY


def test_a_set_is_downloaded_file_by_file_and_then_read(server, tmp_path, monkeypatch, put_mnist):
    put_mnist(server.root)
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(server.root.iterdir())}
    small = originals.SETS["mnist"]._replace(url=f"{server.url}/file/", sha256=sums)
    monkeypatch.setitem(originals.SETS, "mnist", small)
    root = tmp_path / "data"
    originals.obtain("mnist", root, open_any)
    assert {path.name for path in (root / "mnist").iterdir()} == set(sums)
    assert len(data.tfds("mnist", root).train["image"]) == 5

    (root / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    server.seen.clear()
    originals.obtain("mnist", root, open_any)
    assert {pathlib.PurePosixPath(page).name for page in server.seen} == {"t10k-labels-idx1-ubyte.gz"}


def test_a_failing_download_tells_the_recipe_and_keeps_what_arrived(server, tmp_path, monkeypatch, put_mnist):
    put_mnist(server.root)
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(server.root.iterdir())}
    sums["train-labels-idx1-ubyte.gz"] = "0" * 64
    small = originals.SETS["mnist"]._replace(url=f"{server.url}/file/", sha256=sums)
    monkeypatch.setitem(originals.SETS, "mnist", small)
    with pytest.raises(data.DataError, match="(?s)curl.*The download failed.*expected SHA-256 0000"):
        originals.obtain("mnist", tmp_path / "data", open_any)
    assert "train-labels-idx1-ubyte.gz" not in {path.name for path in (tmp_path / "data" / "mnist").iterdir()}
