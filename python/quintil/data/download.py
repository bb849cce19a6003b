"""Fetching the publishers' archives: progress bar, resume, checksum; and unpacking them without trusting
their names.

A transfer goes to "<name>.part"; it is renamed once it is whole and its checksum is right. Whatever goes
wrong, the partial file stays and the error says what to do next.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from .progress import byte_progress

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30.0


def fetch(url: str, destination: Path, *, md5: str | None = None) -> Path:
    """Download url to destination, going on from "<destination>.part" if an earlier call left one; returns
    destination.

    Raises ValueError for a url that is not http(s) or a wrong checksum, FileNotFoundError if the server does
    not have the file, ConnectionError for every other failure of network or server, OSError if the disk is
    full or not writable.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"fetch: expected url to start with http:// or https://, got {url!r}")
    part = destination.with_name(destination.name + ".part")
    destination.parent.mkdir(parents=True, exist_ok=True)
    _transfer(url, part)
    if md5 is not None:
        found = _md5_of(part)
        if found != md5:
            raise ValueError(f"fetch: expected md5 {md5} of {url}, got {found} (delete {part} and call again)")
    os.replace(part, destination)
    return destination


def fetch_and_unpack(url: str, root: Path, folder: str) -> Path:
    """Download a zip archive into root and unpack it as root/folder; the archive is deleted afterwards.

    The UCI archive publishes no checksums: the CRC of every member of the zip is checked instead.
    """
    target, archive = root / folder, root / f"{folder}.zip"
    _refuse_existing(target)
    if not archive.is_file():
        fetch(url, archive)
    unpack_zip(archive, target)
    archive.unlink()
    return target


def unpack_zip(archive: Path, target: Path) -> Path:
    """Unpack into target (which must not exist yet), zips inside the zip included; all or nothing.

    Raises ValueError for a damaged archive, a link, or a member whose name leaves the folder, FileExistsError
    if target exists.
    """
    _refuse_existing(target)
    work = target.with_name(target.name + ".unpacking")
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        _extract(archive, work)
        for inner in sorted(work.rglob("*.zip")):
            _extract(inner, inner.parent)
            inner.unlink()
        os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise FileExistsError(f"unpack_zip: expected {target} not to exist, got a file or folder (move it away)")


def _transfer(url: str, part: Path) -> None:
    """Bring part up to the whole file."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "quintil", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    advice = f"the part so far is kept in {part}: call again to go on from there"
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            resumed = response.status == 206
            if resumed and _range_start(response) != have:
                raise http.client.HTTPException(f"a range from byte {_range_start(response)} instead of {have}")
            have = have if resumed else 0
            length = response.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            _check_space(part, None if total is None else total - have)
            with open(part, "ab" if resumed else "wb") as file:
                have = _copy(response, file, have, total, part.stem)
    except urllib.error.HTTPError as error:
        if error.code == 416 and _total_of(error) == have:
            return
        _explain_http(error, url, part)
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(f"fetch: expected an answer from {url}, got {str(reason)!r} ({advice})") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            message = f"fetch: expected space for {url}, got a full disk (make room; {advice})"
            raise OSError(errno.ENOSPC, message) from None
        raise
    if total is not None and have != total:
        raise ConnectionError(f"fetch: expected {total} bytes from {url}, got {have} ({advice})")


def _copy(response: BinaryIO, file: BinaryIO, have: int, total: int | None, name: str) -> int:
    """Copy the response to file under a progress bar; returns how many bytes the file holds."""
    with byte_progress(name, have, total) as advance:
        while block := response.read(_CHUNK):
            file.write(block)
            have += len(block)
            advance(len(block))
    return have


def _check_space(part: Path, needed: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed is not None and needed > free:
        raise OSError(errno.ENOSPC, f"{needed} bytes needed, {free} free")


def _range_start(response: http.client.HTTPResponse) -> int | None:
    """First byte of a 206 answer's "Content-Range: bytes 5-9/10"."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None


def _total_of(error: urllib.error.HTTPError) -> int | None:
    """Size of the file in a 416 answer's "Content-Range: bytes */10"."""
    total = error.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _explain_http(error: urllib.error.HTTPError, url: str, part: Path) -> None:
    got = f"HTTP {error.code} {error.reason}"
    if error.code in (404, 410):
        raise FileNotFoundError(f"fetch: expected {url} to exist, got {got} (fetch it by hand)") from None
    if error.code == 416:
        raise ConnectionError(f"fetch: expected to resume {url}, got {got} (delete {part} and call again)") from None
    raise ConnectionError(f"fetch: expected {url}, got {got} (call again later)") from None


def _md5_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _extract(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                _check_member(archive, member)
            members.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"unpack_zip: expected {archive.name} to be a whole zip archive, got {str(error)!r}") from None


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or link:
        raise ValueError(f"unpack_zip: expected members inside the folder, got {member.filename!r} in {archive.name}")
