"""Downloads against a server on the loopback address: whole, resumed, broken off, wrong, refused; and unpacking."""

import errno
import hashlib
import http.server
import io
import shutil
import stat
import threading
import zipfile

import pytest
import quintil.data
from data_trees import hapt_tree, rng
from quintil.data import download, hapt
from quintil.data.download import fetch, fetch_and_unpack, unpack_zip

CONTENT = rng().bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`; `server.mode` chooses how it misbehaves; `server.log` keeps the Range headers."""

    def do_GET(self):
        server, content = self.server, self.server.content
        wanted = self.headers.get("Range")
        server.log.append(wanted)
        if self.path != "/file":
            return self.send_error(404)
        if server.mode == "busy":
            return self.send_error(503)
        start = 0
        if wanted and server.mode != "no range":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            shown = start + 1 if server.mode == "wrong range" else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if server.mode != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut] if server.mode == "truncate" else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.content, served.mode, served.log, served.cut = CONTENT, "", [], 1_000_000
    served.url = f"http://127.0.0.1:{served.server_port}/file"
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def part_of(path):
    return path.with_name(path.name + ".part")


def test_a_whole_download(server, tmp_path):
    path = fetch(server.url, tmp_path / "new" / "set.bin", md5=MD5)
    assert path == tmp_path / "new" / "set.bin" and path.read_bytes() == CONTENT
    assert not part_of(path).exists() and server.log == [None]


def test_a_download_that_broke_off_is_resumed(server, tmp_path):
    path = tmp_path / "set.bin"
    server.mode = "truncate"
    with pytest.raises(ConnectionError) as caught:
        fetch(server.url, path, md5=MD5)
    text = str(caught.value)
    assert "expected 3000000 bytes" in text and "got 1000000" in text
    assert f"kept in {part_of(path)}: call again" in text
    assert part_of(path).read_bytes() == CONTENT[:1_000_000] and not path.exists()
    with pytest.raises(ConnectionError, match="got 2000000"):
        fetch(server.url, path, md5=MD5)
    server.mode = ""
    fetch(server.url, path, md5=MD5)
    assert path.read_bytes() == CONTENT and server.log == [None, "bytes=1000000-", "bytes=2000000-"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    part_of(tmp_path / "set.bin").write_bytes(b"something else")
    server.mode = "no range"
    assert fetch(server.url, tmp_path / "set.bin", md5=MD5).read_bytes() == CONTENT


def test_a_server_that_does_not_say_how_much(server, tmp_path):
    server.mode = "no length"
    assert fetch(server.url, tmp_path / "set.bin", md5=MD5).read_bytes() == CONTENT


def test_a_part_that_is_whole_already(server, tmp_path):
    part_of(tmp_path / "set.bin").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / "set.bin", md5=MD5).read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file(server, tmp_path):
    part_of(tmp_path / "set.bin").write_bytes(CONTENT + b"more")
    with pytest.raises(ConnectionError, match="expected to resume .*, got HTTP 416 .*delete .*set.bin.part and call"):
        fetch(server.url, tmp_path / "set.bin")


def test_an_answer_from_the_wrong_byte_leaves_the_part_alone(server, tmp_path):
    part_of(tmp_path / "set.bin").write_bytes(CONTENT[:500])
    server.mode = "wrong range"
    with pytest.raises(ConnectionError, match="a range from byte 501 instead of 500"):
        fetch(server.url, tmp_path / "set.bin")
    assert part_of(tmp_path / "set.bin").read_bytes() == CONTENT[:500]


def test_a_wrong_checksum_keeps_the_part_and_says_so(server, tmp_path):
    path = tmp_path / "set.bin"
    with pytest.raises(ValueError) as caught:
        fetch(server.url, path, md5="0" * 32)
    assert f"expected md5 {'0' * 32} of {server.url}, got {MD5}" in str(caught.value)
    assert f"delete {part_of(path)} and call again" in str(caught.value)
    assert part_of(path).exists() and not path.exists()


@pytest.mark.parametrize(
    ("path", "mode", "error", "message"),
    [
        ("/absent", "", FileNotFoundError, "to exist, got HTTP 404"),
        ("/file", "busy", ConnectionError, "got HTTP 503 Service Unavailable (call again later)"),
    ],
)
def test_errors_of_the_server(path, mode, error, message, server, tmp_path):
    server.mode = mode
    with pytest.raises(error) as caught:
        fetch(server.url.replace("/file", path), tmp_path / "set.bin")
    assert message in str(caught.value)


def test_no_network(server, tmp_path):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match="expected an answer from .*, got .*refused.* .the part so far is kept"):
        fetch(url, tmp_path / "set.bin")


def test_a_silent_server_times_out(tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        with pytest.raises(ConnectionError, match="got 'timed out'"):
            fetch(url, tmp_path / "set.bin")


def test_a_disk_without_space_is_noticed_before_the_transfer(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="got a full disk .make room; the part so far is kept") as caught:
        fetch(server.url, tmp_path / "set.bin")
    assert caught.value.errno == errno.ENOSPC and not (tmp_path / "set.bin").exists()


def test_a_disk_that_fills_up_during_the_transfer(server, tmp_path):
    part_of(tmp_path / "set.bin").symlink_to("/dev/full")
    with pytest.raises(OSError, match="got a full disk") as caught:
        fetch(server.url, tmp_path / "set.bin")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "set.bin"])
def test_only_http_addresses(url, tmp_path):
    with pytest.raises(ValueError, match="expected url to start with http:// or https://, got"):
        fetch(url, tmp_path / "set.bin")


# --- unpacking ----------------------------------------------------------------


def zip_bytes(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_zip_inside_a_zip_is_unpacked_too(server, tmp_path):
    server.content = zip_bytes(
        [("readme", b"text"), ("inner.zip", zip_bytes([("Set/a.txt", b"1"), ("Set/b.txt", b"2")]))]
    )
    folder = fetch_and_unpack(server.url, tmp_path, "set")
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "set/Set/a.txt", "set/Set/b.txt", "set/readme",
    ]  # fmt: skip
    assert folder == tmp_path / "set"
    with pytest.raises(FileExistsError, match="expected .*set not to exist, got a file or folder"):
        fetch_and_unpack(server.url, tmp_path, "set")
    assert len(server.log) == 1


def link_member():
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name", ["../escaped", "/escaped", "a/../../escaped", "..\\escaped", "C:/escaped", link_member()]
)
def test_members_that_leave_the_folder_are_refused(name, tmp_path):
    archive = tmp_path / "in" / "evil.zip"
    archive.parent.mkdir()
    archive.write_bytes(zip_bytes([("good", b"1"), (name, b"/etc/passwd")]))
    with pytest.raises(ValueError, match="unpack_zip: expected members inside the folder, got"):
        unpack_zip(archive, tmp_path / "in" / "set")
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "evil.zip"]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:40], lambda raw: raw[:60] + b"\xff" * 40 + raw[100:], lambda raw: b""]
)
def test_a_damaged_zip_leaves_nothing_behind(damage, tmp_path):
    (tmp_path / "set.zip").write_bytes(damage(zip_bytes([("file", rng().bytes(1000))])))
    with pytest.raises(ValueError, match="expected set.zip to be a whole zip archive, got"):
        unpack_zip(tmp_path / "set.zip", tmp_path / "set")
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]


def test_load_downloads_what_is_absent(server, tmp_path, monkeypatch):
    source = hapt_tree(tmp_path / "source")[0]
    files = [p for p in source.rglob("*") if p.is_file()]
    server.content = zip_bytes([(p.relative_to(source).as_posix(), p.read_bytes()) for p in files])
    monkeypatch.setattr(hapt, "URL", server.url)
    data = quintil.data.load("hapt", tmp_path / "root", download=True)
    assert data.name == "hapt" and len(server.log) == 1
    quintil.data.load("hapt", tmp_path / "root", download=True)
    assert len(server.log) == 1 and not (tmp_path / "root" / "HAPT Data Set.zip").exists()
