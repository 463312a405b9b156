"""Downloads of single files over https, checked against their SHA-256."""

import glob
import hashlib
import http.client
import io
import os
import pathlib
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

from genjax.data import files
from genjax.data.dataset import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE = 3.0
ATTEMPTS = 3
CHUNK = 1 << 20
MOST = 1 << 28
"""Maximum number of bytes; the largest published file has 170 MB."""
FAILURES = (OSError, http.client.HTTPException)

OpenUrl = Callable[[str, float], io.BufferedIOBase]
"""``open_url(url, seconds)`` returns the body; raises one of FAILURES, URLError included."""


class HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Handler that follows redirects to https only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request of the new address; raise URLError if it is not https."""
        _demand_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_https(url: str, seconds: float) -> io.BufferedIOBase:
    """Open an https address and return the body; proxies of the environment are used.

    Raises:
      URLError: there is no connection, the address is not https, or the server refuses.
    """
    _demand_https(url)
    return urllib.request.build_opener(HttpsRedirects()).open(url, timeout=seconds)


def _demand_https(url: str) -> None:
    if not url.startswith("https://"):
        raise urllib.error.URLError(f"{url}: only https is allowed")


def fetch(url: str, path: pathlib.Path, sha256: str, open_url: OpenUrl = open_https) -> None:
    """Download a file, verify its SHA-256, and move it to its path.

    The file is written beside ``path`` under a temporary name, flushed to the disk and renamed, so that a killed
    program leaves no partial ``path``. Broken connections and wrong bytes are tried three times, refusals (404, ...)
    once.

    Args:
      url: address of the file.
      path: target path; its folder is created.
      sha256: expected SHA-256 of the content, hexadecimal.
      open_url: function that opens an address.

    Raises:
      DataError: the download failed; the message gives the reason.
    """
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            reason = _attempt(url, path, sha256, open_url)
        except urllib.error.HTTPError as error:
            error.close()
            raise DataError(f"{url}: {error}") from error
        except FAILURES as error:
            reason = str(error) or type(error).__name__
        if not reason:
            return
    raise DataError(f"{url}: {reason}, {ATTEMPTS} times")


def _attempt(url: str, path: pathlib.Path, sha256: str, open_url: OpenUrl) -> str:
    """Download once; return the error message of wrong bytes, or an empty string on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open_url(url, 30.0) as body, open(part, "xb") as file:
            _claim(file)
            got = _copy(body, file)
        if got != sha256:
            return f"expected SHA-256 {sha256}, got {got} in {part.stat().st_size} bytes"
        os.replace(part, path)
        return ""
    finally:
        part.unlink(missing_ok=True)


def _claim(file: io.BufferedIOBase) -> bool:
    """Lock a file for as long as it is open; False if another process holds the lock."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def _clean(path: pathlib.Path) -> None:
    """Remove partial files that killed programs have left of this download."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        try:
            with files.open_regular(part) as file:
                if _claim(file):
                    part.unlink(missing_ok=True)
        except (OSError, DataError):
            continue  # in use by another process


def _copy(body: io.BufferedIOBase, file: io.BufferedIOBase) -> str:
    """Copy to the disk, and return the SHA-256."""
    digest, length = hashlib.sha256(), 0
    while chunk := body.read(CHUNK):
        digest.update(chunk)
        length += len(chunk)
        if length > MOST:
            raise DataError(f"more than {MOST} bytes come, which none of these files has")
        file.write(chunk)
    file.flush()
    os.fsync(file.fileno())
    return digest.hexdigest()


def unreachable(url: str, open_url: OpenUrl = open_https) -> str:
    """Reason that an address cannot be opened within three seconds, name resolution included; empty if it can be."""
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(_refusal(url, open_url)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answers[0] if answers else f"{url}: no answer within {PATIENCE:.0f} s"


def _refusal(url: str, open_url: OpenUrl) -> str:
    try:
        open_url(url, PATIENCE).close()
        return ""
    except FAILURES as error:
        return f"{url}: {error or type(error).__name__}"
