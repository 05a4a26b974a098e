"""Folders and servers that are not what they should be: named, and never waited for without an end."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("imagecodecs", reason="needs the cli extra")
from PIL import Image

from attacker_metrics.files.images import Decoding, ImageError, read_bytes
from attacker_metrics.pairs.folders import FolderPairs, PairingError
from attacker_metrics.pairs.manifest import ManifestError, ManifestPairs
from attacker_metrics.pairs.sources import FailedPair, LoadedPair

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture
def folders(tmp_path):
    for side in ("clean", "noisy"):
        (tmp_path / side).mkdir()
        Image.fromarray(PIXELS).save(tmp_path / side / "a.png")
    return tmp_path


def pairs_of(folders) -> FolderPairs:
    return FolderPairs(folders / "clean", folders / "noisy")


def test_linked_folders_are_followed_and_one_that_leads_back_is_named(folders):
    for side in ("clean", "noisy"):
        (folders / f"{side}_elsewhere").mkdir()
        Image.fromarray(PIXELS).save(folders / f"{side}_elsewhere" / "b.JFIF", "JPEG")
        (folders / side / "link").symlink_to(folders / f"{side}_elsewhere")
        (folders / f"{side}_elsewhere" / "back").symlink_to(folders / side)
    pairs = pairs_of(folders)
    assert pairs.ids == ["a", "link/b"]
    assert pairs.unused["links to a folder around them"]["count"] == 2


def test_whatever_is_not_used_is_counted_and_named_by_kind(folders):
    for side, names in (("clean", ("x.heic", ".hidden.png", "notes")), ("noisy", ("x.heic", "y.heic"))):
        for name in names:
            (folders / side / name).write_bytes(b"?")
    unused = pairs_of(folders).unused
    assert {kind: found["count"] for kind, found in unused.items()} == {
        "files ending in .heic": 3,
        "files ending in nothing": 1,
        "hidden files and folders": 1,
    }
    assert unused["hidden files and folders"]["such_as"] == [str(folders / "clean" / ".hidden.png")]


def test_unused_files_are_a_flag_of_the_summary(folders):
    from attacker_metrics.commands import cli

    (folders / "clean" / "x.heic").write_bytes(b"?")
    sides = ["--clean", str(folders / "clean"), "--noisy", str(folders / "noisy")]
    assert cli.main(["evaluate", *sides, "--output", str(folders / "out"), "--betas", "1"]) == 0
    (flag,) = (f for f in json.loads((folders / "out" / "summary.json").read_text())["flags"] if f["name"] == "unused")
    assert (flag["value"], "x.heic" in flag["message"]) == (1, True)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_a_name_that_is_no_utf8_is_read_and_spelled_out(folders):
    for side in ("clean", "noisy"):
        (folders / side / "a.png").rename(folders / side / os.fsdecode(b"caf\xe9.png"))
    pairs = pairs_of(folders)
    assert pairs.rows(0, 1)["id"].to_pylist() == ["caf\\xe9"]
    pairs.check()
    assert isinstance(pairs.load(0, {}), LoadedPair)
    (folders / "noisy" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    with pytest.raises(PairingError, match=r"\\xff.png"):
        pairs_of(folders)


def test_folders_whose_names_say_that_they_are_swapped_are_refused(folders):
    with pytest.raises(PairingError, match="seem to be swapped"):
        FolderPairs(folders / "noisy", folders / "clean")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX only")
def test_only_regular_files_are_opened(folders, monkeypatch):
    for name in ("fifo.png", "socket.png", "device.png"):
        Image.fromarray(PIXELS).save(folders / "clean" / name)
    os.mkfifo(folders / "noisy" / "fifo.png")
    (folders / "noisy" / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(folders / "noisy")  # a socket's path must be short
        listening.bind("socket.png")
        pairs = pairs_of(folders)
        for name, kind in (("fifo", "a named pipe"), ("socket", "a socket"), ("device", "a device")):
            failed = pairs.load(pairs.ids.index(name), {})
            assert isinstance(failed, FailedPair)
            assert f"{name}.png cannot be read as an image: it is {kind}, not a regular file" in failed.reason
    with pytest.raises(ImageError, match="it is a folder"):
        read_bytes(folders / "clean")


class Hostile(http.server.BaseHTTPRequestHandler):
    """Hangs, sends without an end, drips, or leads elsewhere."""

    def do_GET(self):
        kind = self.path.strip("/").split(".")[0]
        if kind.startswith("redirect"):
            target = {
                "redirect_file": "file:///etc/hostname",
                "redirect_ftp": "ftp://127.0.0.1/a.png",
                "redirect_loop": "/redirect_loop.png",
            }[kind]
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            return
        if kind == "hang":
            self.server.over.wait(60)
            return
        self.send_response(200)
        self.end_headers()
        try:
            while not self.server.over.wait(0.05 if kind == "drip" else 0):
                self.wfile.write(bytes(1 if kind == "drip" else 100_000))
        except OSError:
            pass

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def server():
    pytest.importorskip("aiohttp", reason="fsspec needs it for http")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as serving:
        serving.daemon_threads, serving.over = True, threading.Event()
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.over.set()
        serving.shutdown()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("hang", "had not arrived after 1 s; raise --timeout"),
        ("drip", "had not arrived after 1 s; raise --timeout"),
        ("endless", "bytes or more, the limit is 300,000"),
        ("redirect_file", "is redirected to file:///etc/hostname; a server may redirect to http:// and https:// only"),
        ("redirect_ftp", "is redirected to ftp://127.0.0.1/a.png; a server may redirect to http:// and https:// only"),
        ("redirect_loop", "is redirected more than 5 times"),
    ],
)
def test_a_server_costs_its_own_file_only(server, kind, message):
    with pytest.raises(ImageError, match=message):
        read_bytes(f"{server}/{kind}.png", Decoding(timeout=1, max_bytes=300_000))


def test_a_manifest_on_a_server_that_hangs_is_not_called_missing(server):
    with pytest.raises(ManifestError, match="had not answered after 1 s; raise --timeout"):
        ManifestPairs(f"{server}/hang.csv", decoding=Decoding(timeout=1))


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_server_that_hangs_does_not_hold_the_process_after_a_signal(server, folders):
    rows = "".join(f"{i},clean/a.png,{server}/hang.png?{i}\n" for i in range(20))
    (folders / "m.csv").write_text(f"id,clean,noisy\n{rows}")
    command = [
        sys.executable,
        "-m",
        "attacker_metrics",
        "evaluate",
        "--manifest",
        "m.csv",
        "--timeout",
        "600",
        "--workers",
        "4",
    ]
    with subprocess.Popen(command, cwd=folders, stderr=subprocess.PIPE, text=True) as process:
        while not (folders / "attacker-metrics-report" / ".unfinished").exists() and process.poll() is None:
            time.sleep(0.1)
        time.sleep(1)  # the threads wait for the server by now
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)  # a process that waits for its threads is there for 600 s
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
