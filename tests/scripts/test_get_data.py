"""Downloads from a local server, and `data.sh`."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coft.core.errors import UserError
from coft.core.paths import HOME
from scripts import get_data
from scripts.getting import download as downloading
from scripts.getting import lay_out
from scripts.getting.download import download, download_drive
from scripts.getting.sources import ORIGINS, File

from .archives import tar


class Server:
    """Local HTTP server with a list of replies for each path; the last reply is repeated."""

    def __init__(self) -> None:
        self.replies: dict[str, list[tuple[bytes, int]]] = {}
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                replies = outer.replies.get(self.path)
                if not replies:
                    self.send_error(404)
                    return
                body, cut = replies.pop(0) if len(replies) > 1 else replies[0]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) - cut])

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def put(self, path: str, *bodies: bytes, cut: int = 0) -> str:
        """Set the replies of a path, the first without its last `cut` bytes. Returns the URL."""
        self.replies[path] = [(body, cut if i == 0 else 0) for i, body in enumerate(bodies)]
        return f"http://127.0.0.1:{self.http.server_port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    local_server = Server()
    yield local_server
    local_server.http.shutdown()
    local_server.http.server_close()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


# ---------------------------------------------------------------- downloads


def test_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.bin", b"content")
    path = download(url, tmp_path / "new" / "a.bin", md5(b"content"))
    assert path.read_bytes() == b"content"
    download(url, path, md5(b"content"))
    assert server.requests == ["/a.bin"] and [p.name for p in path.parent.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("checksum", [md5(b"content"), ""])
def test_interrupted_download_is_repeated(server: Server, tmp_path: Path, checksum: str) -> None:
    url = server.put("/a.bin", b"content", b"content", cut=3)
    assert download(url, tmp_path / "a.bin", checksum).read_bytes() == b"content"
    assert len(server.requests) == 2


def test_file_with_wrong_checksum_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"damaged on the disk")
    url = server.put("/a.bin", b"damaged on the way", b"content")
    assert download(url, path, md5(b"content")).read_bytes() == b"content"


def test_failed_download_is_one_line_and_leaves_no_file(server: Server, tmp_path: Path) -> None:
    url = server.put("/a.bin", b"something else")
    closed = "http://127.0.0.1:9/a.bin"
    for address, attempts in ((url, downloading.ATTEMPTS), (closed, 0), (server.put("/no"), 1)):
        server.requests.clear()
        with pytest.raises(UserError, match=r"127\.0\.0\.1") as error:
            download(address, tmp_path / "a.bin", md5(b"content"))
        assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
        assert len(server.requests) == attempts


def test_google_drive(tmp_path: Path) -> None:
    path = tmp_path / "set" / "split.json"

    def give(text: str) -> Callable[[str, Path], None]:
        return lambda drive_id, to: to.write_text(text.format(drive_id)) and None

    def fail(drive_id: str, to: Path) -> None:
        raise RuntimeError("Cannot retrieve the public link:\nmany lines")

    for source in (give("<html>quota of {}</html>"), fail):
        with pytest.raises(UserError, match=r"split.json: .* get https://drive") as error:
            download_drive("ID", path, source)
        assert "\n" not in str(error.value) and not list(path.parent.iterdir())
    download_drive("ID", path, give('{{"id": "{}"}}'))
    assert json.loads(path.read_text()) == {"id": "ID"}
    download_drive("ID", path, fail)  # the file exists


# ---------------------------------------------------------------- data.sh


@pytest.fixture
def textures(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Local server with DTD; its split file comes from a stub of Google Drive."""
    archive = tar({"dtd/images/banded/x.jpg": b"x"})
    address = server.put("/dtd.tar.gz", archive)
    origin = replace(ORIGINS["dtd"], files=(File(address, md5(archive), {"dtd": "dtd"}),))
    monkeypatch.setitem(ORIGINS, "dtd", origin)
    monkeypatch.setattr(lay_out, "download_drive", lambda drive_id, path: path.parent.mkdir() or path.write_text("{}"))
    return server


def test_dataset_is_downloaded_once(textures: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for message in ("downloaded to", "is at"):
        assert get_data.main(["dtd", "--data", str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"dtd: {message} {tmp_path / 'dtd'}\n"
    assert textures.requests == ["/dtd.tar.gz"]
    assert sorted(p.name for p in (tmp_path / "dtd").iterdir()) == ["images", "split_zhou_DescribableTextures.json"]


def test_missing_split_file_does_not_stop_the_download(
    textures: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(drive_id: str, path: Path) -> None:
        raise UserError(f"{path.name}: not available")

    monkeypatch.setattr(lay_out, "download_drive", refuse)
    assert get_data.main(["dtd", "--data", str(tmp_path)]) == 0
    assert "dtd: split_zhou_DescribableTextures.json: not available" in caplog.text
    assert (tmp_path / "dtd" / "images" / "banded" / "x.jpg").is_file()


def test_second_url_is_tried(textures: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = ORIGINS["dtd"].files
    missing = textures.put("/missing.tar.gz")
    monkeypatch.setitem(ORIGINS, "dtd", replace(ORIGINS["dtd"], files=(replace(file, url=missing, mirror=file.url),)))
    assert get_data.main(["dtd", "--data", str(tmp_path)]) == 0
    assert textures.requests == ["/missing.tar.gz", "/dtd.tar.gz"]


def test_failure_does_not_stop_other_datasets(
    textures: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        ORIGINS, "food101", replace(ORIGINS["food101"], files=(File(textures.put("/no"), moves={"a": "food-101"}),))
    )
    monkeypatch.setattr(get_data, "NAMES", ["food101", "dtd"])
    assert get_data.main(["all", "--data", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("dtd: downloaded") and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("name", [name for name, origin in ORIGINS.items() if origin.steps])
def test_manual_steps_are_printed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lay_out, "download_drive", lambda *args: None)
    assert get_data.main([name, "--data", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "  1. " in out and f"error: {name}: nothing at" in err
    for path in ORIGINS[name].needs:
        (tmp_path / path).mkdir(parents=True)
    assert get_data.main([name, "--data", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("npm", "message"),
    [("", "Node.js"), ("printf 'npm error %s\\n' 'code 1' 'syscall x' 'no way' >&2; exit 1", "npm error no way")],
)
def test_drawings_need_npm(
    npm: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if npm:
        (tmp_path / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COFT_CACHE", str(tmp_path / "cache"))
    assert get_data.main(["icons", "--data", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: npm ") and message in line


def test_list_contains_all_datasets_with_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert get_data.main(["list", "--data", str(tmp_path)]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.split("By hand:")[0].splitlines()[2:] if line}
    configs = (HOME / "configs" / "datasets").glob("*.yaml")
    assert listed == {path.stem for path in configs} - {"folder"}


def test_download_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, object]] = []
    monkeypatch.setattr("torchvision.datasets.SVHN", lambda root, **options: calls.append({"root": root, **options}))
    monkeypatch.setattr(lay_out, "write_set", lambda name, root: calls.append({"write": name}))
    lay_out.get("svhn", tmp_path)
    options = {"root": str(tmp_path / "svhn"), "download": True}
    assert calls == [{**options, "split": "train"}, {**options, "split": "test"}, {"write": "SVHN"}]

    def offline(root: str, **options: object) -> None:
        raise RuntimeError("Error downloading train_32x32.mat\nat length")

    monkeypatch.setattr("torchvision.datasets.SVHN", offline)
    with pytest.raises(UserError, match=r"svhn: .*\(Error .*\.mat\)"):
        lay_out.get("svhn", tmp_path)
