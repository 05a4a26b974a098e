"""Who comes in to the annotation app, by real sockets where it matters: connections, names, links, secrets, stale tabs."""

import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import uvicorn
from annotation_study import CLASSES, make_study
from starlette.testclient import TestClient

from attacker_metrics.annotation import Database, DatabaseFileError, create_app, open_study, read_votes
from attacker_metrics.annotation.answers import read_answers
from attacker_metrics.annotation.connections import most_connections
from attacker_metrics.annotation.gate import Guesses, TooManyGuessesError, check_host
from attacker_metrics.annotation.server import configured, hosts_of
from attacker_metrics.commands.cli import main

OWNER = "a-token-of-the-owner"
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def manifest(tmp_path):
    return make_study(tmp_path / "study")


@pytest.fixture
def store(manifest, tmp_path):
    with closing(Database(tmp_path / "votes.sqlite")) as database:
        yield open_study(manifest, database, repeats=0, catch=0)


@pytest.fixture
def client(store, manifest):
    """Makes a browser of somebody."""
    app = create_app(store, manifest.parent, OWNER)
    with ExitStack() as clients:
        yield lambda **options: clients.enter_context(TestClient(app, base_url=ADDRESS, **options))


def begin(visitor, name):
    assert visitor.post("/begin", data={"name": name}).url == f"{ADDRESS}/trial"
    return visitor


def token_of(page):
    return re.search(r'name="trial" value="([^"]+)"', page.text)[1]


def notice(page):
    found = re.search(r'<p class="notice" role="alert">(.*?)</p>', page.text)
    return None if found is None else found[1].replace("&#39;", "'")


# Connections


@contextmanager
def served(manifest, database, *options, files=None, environment=()):
    """The command in a process of its own, which may open so many files."""
    command = [sys.executable, "-m", "attacker_metrics", "annotate", str(manifest), "--database", str(database)]
    limit = (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]) if files else None
    with subprocess.Popen(
        [*command, "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ATTACKER_METRICS_BACKEND": "torch", **dict(environment)},
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit)) if limit else None,
    ) as process:
        try:
            line = process.stdout.readline()
            if not line.startswith("annotators: "):
                raise AssertionError(process.stderr.read())
            yield process, int(re.search(r":(\d+)/$", line)[1])
        finally:
            process.kill()


def fetch(port, path="/", headers=""):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Connection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: one.recv(65536), b""))


def test_connections_that_send_nothing_keep_nobody_out_and_a_token_on_the_command_line_is_warned_of(manifest, tmp_path):
    database = tmp_path / "votes.sqlite"
    with served(manifest, database, "--owner-token", OWNER, files=256) as (process, port), ExitStack() as opened:
        assert fetch(port, f"/owner?token={OWNER}").startswith(b"HTTP/1.1 303")
        for sent in 260 * [
            b"",
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
        ]:  # more than it may open
            silent = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            silent.sendall(sent)
        for _ in range(20):
            assert fetch(port).startswith(b"HTTP/1.1 200 OK")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        (warning,) = process.stderr.read().splitlines()
        assert "everybody on this machine can see the token of --owner-token" in warning


@contextmanager
def served_here(store, manifest, **settings):
    """The same server in a thread; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(configured(create_app(store, manifest.parent, OWNER), **settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST /vote HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\ntrial",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /static/keys.js HTTP/1.1\r\nX-Slow: ",
        b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n",
    ],
    ids=["nothing", "half a header", "half a form", "half a second one", "a form that nobody wants"],
)
def test_a_request_that_does_not_end_is_cut_off(store, manifest, monkeypatch, beginning):
    monkeypatch.setattr("attacker_metrics.annotation.connections.REQUEST_SECONDS", 0.5)
    monkeypatch.setattr("attacker_metrics.annotation.connections.ANSWER_SECONDS", 1.0)
    with served_here(store, manifest) as port, socket.create_connection(("127.0.0.1", port), timeout=0.1) as one:
        one.sendall(beginning)
        assert any(is_over(one) for _ in range(600))  # a minute


def is_over(one):
    """Whether the other side has ended the connection, although a byte came now and then."""
    try:
        one.sendall(b"x")
        return one.recv(65536) == b""
    except TimeoutError:
        return False
    except OSError:  # the other way to end
        return True


def test_an_answer_that_nobody_fetches_is_cut_off(monkeypatch):
    monkeypatch.setattr("attacker_metrics.annotation.connections.ANSWER_SECONDS", 0.5)

    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(50_000_000)})

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(configured(endless))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with socket.create_connection(listening.getsockname(), timeout=60) as one:
                one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                one.recv(1)
                assert any(not server.server_state.connections or time.sleep(0.05) for _ in range(1200))  # a minute
        finally:
            server.should_exit = True
            thread.join()


def test_an_answered_connection_goes_on(store, manifest):
    with (
        served_here(store, manifest) as port,
        socket.create_connection(("127.0.0.1", port), timeout=60) as one,
        one.makefile("rb") as answers,
    ):
        for _ in range(3):
            for part in (b"GET / HTTP/1.1\r\n", b"Host: 127.0.0.1\r\n\r\n"):
                one.sendall(part)
                time.sleep(0.05)
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            headers = dict(line.split(b": ", 1) for line in iter(answers.readline, b"\r\n"))
            answers.read(int(headers[b"content-length"]))


def test_there_are_fewer_connections_than_files():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for files, most in ((200, 72), (100, 16), (400, 272)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, before[1]))
            assert most_connections() == most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert most_connections() <= 512


# Host names


@pytest.mark.parametrize(
    ("listening", "allowed", "fine", "refused"),
    [
        (
            "127.0.0.1",
            (),
            ("127.0.0.1", "localhost:8000", "[::1]:8000"),
            ("evil.example", "192.0.2.7", "localhost.evil.example"),
        ),
        ("192.0.2.7", (), ("192.0.2.7:8000", "localhost"), ("192.0.2.8", "evil.example", "192.0.2.7.evil.example")),
        (
            "0.0.0.0",
            (),
            ("192.0.2.8", "[2001:db8::1]:80", socket.gethostname()),
            ("evil.example", "address", "1.2.3.4.example"),
        ),
        ("::", (), ("192.0.2.8", "[2001:db8::1]"), ("evil.example",)),
        ("127.0.0.1", ("Study.example",), ("study.example", "STUDY.example:443"), ("www.study.example", "192.0.2.7")),
        ("0.0.0.0", ("*.study.example",), ("a.study.example", "a.b.study.example"), ("study.example", "evilstudy.example")),
        ("0.0.0.0", ("*",), ("evil.example", "192.0.2.7"), ()),
    ],
)
def test_pages_are_served_under_known_names_only(store, manifest, listening, allowed, fine, refused):
    app = create_app(store, manifest.parent, OWNER, hosts=hosts_of(listening, allowed))
    with TestClient(app, base_url=ADDRESS) as visitor:
        for host in fine:
            assert visitor.get("/", headers={"Host": host}).status_code == 200, host
        for host in (*refused, *(() if "*" in allowed else ("", "a b", "user@127.0.0.1", "127.0.0.1:x", "[::1", "*"))):
            answer = visitor.get("/", headers={"Host": host})
            assert answer.status_code == 400, host
            assert "--allowed-hosts" in answer.text


@pytest.mark.parametrize("name", ["http://study.example", "study.example:80", "a b", "a*b", "*.", "", "*.*", "a/b", "**"])
def test_what_is_no_host_name_is_refused_with_the_fix(name, manifest, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"is no host name; write names as in study\.example"):
        check_host(name)
    if name:
        command = ["annotate", str(manifest), "--database", str(tmp_path / "v.sqlite"), "--allowed-hosts", name]
        assert main(command) == 2
        assert "--allowed-hosts" in capsys.readouterr().err


# Links and cookies


def test_a_link_asks_before_it_changes_the_voter(store, client):
    ann, bob = begin(client(), "Ann"), begin(client(), "Bob")
    keys = [annotator.key for annotator in store.annotators()]
    page = ann.get(f"/a/{keys[1]}")
    assert page.url.path == f"/a/{keys[1]}"
    assert "This browser belongs to Ann" in page.text
    assert ">Go on as Bob<" in page.text
    assert "Ann" in ann.get("/trial").text
    ann.post("/vote", data={"trial": token_of(ann.get("/trial")), "answer": "0"})
    assert [answer.annotator for answer in read_answers(store)] == ["Ann"]
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert ann.post(f"/a/{keys[1]}", headers=headers).status_code == 403
    assert ann.get(f"/a/{keys[0]}").url == f"{ADDRESS}/trial"  # one's own needs no question
    assert ann.post(f"/a/{keys[1]}").url == f"{ADDRESS}/trial"
    assert '<p class="who">Bob</p>' in ann.get("/trial").text
    assert client().get(f"/a/{keys[1]}").url == f"{ADDRESS}/trial"  # nobody was there
    assert client().post("/a/1-wrong").status_code == 404
    picture = client()
    assert picture.get(f"/a/{keys[1]}", headers={"Sec-Fetch-Dest": "image"}).status_code == 400
    assert picture.cookies == {}
    assert bob.get("/trial").status_code == 200


def test_a_page_of_another_annotator_of_this_browser_says_so(store, client):
    browser = begin(client(), "Ann")
    stale = token_of(browser.get("/trial"))
    begin(browser, "Bob")
    page = browser.post("/vote", data={"trial": stale, "answer": "0"})
    assert page.status_code == 400
    assert "none of yours, so nothing was counted: this browser belongs to Bob now" in page.text
    assert read_answers(store) == []


def test_a_browser_without_cookies_is_told(store, client):
    visitor = client()
    page = visitor.post("/begin", data={"name": "Ann"}, follow_redirects=False)
    assert page.status_code == 303
    visitor.cookies.clear()
    page = visitor.get(page.headers["location"])
    assert page.url.path == "/"
    assert "This browser has not kept the cookie" in notice(page)
    visitor = client()
    link = visitor.get(f"/a/{store.annotators()[0].key}", follow_redirects=False)
    visitor.cookies.clear()
    assert "open your personal link again" in notice(visitor.get(link.headers["location"]))
    for path in ("/trial", "/pause"):
        assert "This browser does not know you" in notice(client().get(path))
    assert "does not know you" in notice(client().post("/undo", data={"trial": "x"}))
    assert "Your last answer was not counted" in notice(client().post("/vote", data={"trial": "x", "answer": "0"}))
    assert notice(client().get("/")) is None
    assert notice(client().get("/?stranger=<b>")) is None


# Stale tabs


def test_an_answer_from_a_stale_tab_is_not_dropped_without_a_word(store, client):
    ann = begin(client(), "Ann")
    first = token_of(ann.get("/trial"))
    assert notice(ann.post("/vote", data={"trial": first, "answer": "0"})) is None
    assert notice(ann.post("/vote", data={"trial": first, "answer": "0"})) is None  # sent twice, nothing is lost
    said = notice(ann.post("/vote", data={"trial": first, "answer": "1"}))
    assert "“chelsea” to picture 1 was not counted" in said
    assert "“astronaut” had been given before" in said
    said = notice(ann.post("/vote", data={"trial": first, "answer": "none"}))
    assert "“Cannot tell” to picture 1 was not counted" in said
    second = token_of(ann.get("/trial"))
    assert notice(ann.post("/undo", data={"trial": first})) is None
    said = notice(ann.post("/vote", data={"trial": second, "answer": "2"}))
    assert "“coffee” to picture 2 was not counted, because picture 1 comes before it" in said
    assert [(answer.answer, answer.undone) for answer in read_answers(store)] == [("astronaut", True)]


def test_an_undo_from_a_stale_tab_is_not_dropped_without_a_word(store, client):
    ann = begin(client(), "Ann")
    tokens = []
    for _ in range(3):
        tokens.append(token_of(ann.get("/trial")))
        ann.post("/vote", data={"trial": tokens[-1], "answer": "none"})
    assert "The answer to picture 1 was not taken back" in notice(ann.post("/undo", data={"trial": tokens[0]}))
    assert notice(ann.post("/undo", data={"trial": tokens[2]})) is None
    assert notice(ann.post("/undo", data={"trial": tokens[2]})) is None  # sent twice
    assert "The answer to picture 2 was not taken back" in notice(ann.post("/undo", data={"trial": tokens[1]}))
    assert [answer.undone for answer in read_answers(store)] == [False, False, True]


def test_a_stale_tab_is_told_at_the_end_too_and_links_tell_nothing_of_others(store, client):
    ann, bob = begin(client(), "Ann"), begin(client(), "Bob")
    while "Picture" in (page := ann.get("/trial")).text and 'name="answer"' in page.text:
        token = token_of(page)
        ann.post("/vote", data={"trial": token, "answer": "3"})
    page = ann.post("/vote", data={"trial": token, "answer": "0"})
    assert "That was the last picture" in page.text
    assert "“rocket” had been given before" in notice(page)
    for query in (f"late={token}&answer=0", f"kept={token}", "late=x&answer=0", f"late={token}&answer=<b>", "late="):
        assert notice(bob.get(f"/trial?{query}")) is None
    assert notice(ann.get(f"/trial?late={token}&answer=<b>")) is None
    assert len(read_votes(store.database.path).votes["Ann"]) == 2 * len(CLASSES)


# Secrets


def test_wrong_secrets_make_their_address_wait_and_no_other(store, manifest):
    app = create_app(store, manifest.parent, OWNER)
    ann = store.register("Ann")

    def visitor(address):
        return TestClient(app, base_url=ADDRESS, client=(address, 5000))

    with visitor("192.0.2.7") as one, visitor("192.0.2.8") as other:
        one.get(f"/a/{ann.key}")
        owner = other
        owner.get("/owner", params={"token": OWNER})
        for k in range(11):
            path = f"/owner?token=guess{k}" if k % 2 else f"/a/1-guess{k}"
            assert one.get(path).status_code == (403 if k % 2 else 404)
        for path in ("/owner?token=guess", f"/owner?token={OWNER}", f"/a/{ann.key}"):
            answer = one.get(path)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
            assert "Too many wrong links or tokens" in answer.text
        assert one.post(f"/a/{ann.key}").status_code == 429
        assert one.get("/trial").status_code == 200  # who is in stays in
        assert other.get(f"/owner?token={OWNER}").status_code == 200
        with visitor("192.0.2.9") as third:
            assert third.get(f"/owner?token={OWNER}").status_code == 200


@pytest.mark.parametrize("is_behind_another", [False, True])
def test_an_address_is_claimed_by_the_server_before_this_one_only(store, manifest, is_behind_another):
    with served_here(store, manifest, is_behind_another=is_behind_another) as port:
        answers = [fetch(port, f"/a/1-guess{k}", f"X-Forwarded-For: 192.0.2.{k}\r\n") for k in range(12)]
    assert [b" 429 " in answer.split(b"\r\n")[0] for answer in answers] == [False] * 11 + [not is_behind_another]


def test_the_wait_doubles_up_to_five_minutes_and_is_forgotten():
    now = [0.0]
    guesses, waits = Guesses(clock=lambda: now[0]), []
    for _ in range(24):
        try:
            guesses.check("2001:db8::1")
        except TooManyGuessesError as error:
            waits.append(error.seconds)
            now[0] += error.seconds
        guesses.was_wrong("2001:db8::2")  # the same network
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]
    with pytest.raises(TooManyGuessesError):
        guesses.check("2001:db8::ffff")
    guesses.check("2001:db8:0:1::1")
    guesses.check("192.0.2.1")
    now[0] += 4000
    guesses.was_wrong("2001:db8::1")
    guesses.check("2001:db8::1")
    for k in range(20_000):  # memory stays bounded
        guesses.was_wrong(f"10.0.{k // 256}.{k % 256}")
    assert len(guesses._guessers) == 10_000


def test_mapped_addresses_are_told_apart():
    guesses = Guesses()
    for _ in range(11):
        guesses.was_wrong("::ffff:192.0.2.1")
    guesses.check("::ffff:192.0.2.2")
    with pytest.raises(TooManyGuessesError):
        guesses.check("::ffff:192.0.2.1")


def test_the_owners_cookie_is_not_the_token(client):
    owner = client()
    owner.get("/owner", params={"token": OWNER})
    assert OWNER not in str(dict(owner.cookies))
    guesser = client()
    guesser.cookies = dict.fromkeys(owner.cookies, OWNER)
    assert guesser.get("/owner").status_code == 403
    assert owner.get("/owner").status_code == 200


def test_the_token_comes_from_a_file_rather_than_from_the_environment(manifest, tmp_path):
    """From the environment alone it comes in the tests in a browser."""
    secret = tmp_path / "token"
    secret.write_text(f"{OWNER}\n")
    secret.chmod(0o600)
    environment = {"ATTACKER_METRICS_OWNER_TOKEN": "another-one-that-is-unused"}
    options = ("--token-file", str(secret))
    with served(manifest, tmp_path / "v.sqlite", *options, environment=environment) as (process, port):
        assert process.stdout.readline().endswith(f"/owner?token={OWNER}\n")
        assert fetch(port, f"/owner?token={OWNER}").startswith(b"HTTP/1.1 303")
        assert fetch(port, "/owner?token=wrong").startswith(b"HTTP/1.1 403")
        assert OWNER.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.terminate()
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (OWNER, 0o644, "can be read by others on this machine; run chmod 600"),
        ("", 0o600, "holds no token"),
        ("short", 0o600, "the owner's token has 5 characters"),
        ("x" * 5000, 0o600, "holds no token"),
        (None, 0o600, "there is no such file"),
    ],
)
def test_a_file_that_holds_no_secret_is_told(manifest, tmp_path, capsys, content, mode, message):
    secret = tmp_path / "token"
    if content is not None:
        secret.write_text(content)
        secret.chmod(mode)
    command = ["annotate", str(manifest), "--database", str(tmp_path / "v.sqlite"), "--token-file", str(secret)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert OWNER not in error


# Damaged databases


DAMAGE = {
    "no study": ["DELETE FROM study"],
    "no votes": ["DROP TABLE votes"],
    "no items": ["PRAGMA foreign_keys = OFF", "DROP TABLE items"],
    "no rows": ["PRAGMA foreign_keys = OFF", "DELETE FROM items"],
    "half JSON": ["UPDATE items SET content = '{'"],
    "a list": ["UPDATE items SET content = '[1]'"],
    "deep JSON": [f"UPDATE items SET content = '{'[' * 100_000}'"],
    "another column": ["UPDATE items SET content = json_set(content, '$.x', 1)"],
    "a number": ["UPDATE items SET content = json_set(content, '$.reconstruction', 5)"],
    "no list": ["UPDATE items SET content = json_set(content, '$.candidates', 5)"],
    "a task": ["UPDATE study SET task = 'x'"],
    "a share": ["UPDATE study SET repeats = 'many'"],
    "a name": ["UPDATE study SET name = x'ff'"],
    "an item": ["PRAGMA foreign_keys = OFF", "UPDATE trials SET item = 99"],
    "a negative item": ["PRAGMA foreign_keys = OFF", "UPDATE trials SET item = -1"],
    "a kind": ["UPDATE trials SET kind = 'x'"],
    "a time": ["UPDATE votes SET answered_at = 1e300"],
    "no time": ["UPDATE votes SET shown_at = 'now'"],
    "bytes": ["UPDATE votes SET answer = x'ff00'"],
    "an annotator": ["UPDATE annotators SET name = x'ff00'"],
}


@pytest.fixture
def voted(store, client):
    ann = begin(client(), "Ann")
    for _ in range(3):
        ann.post("/vote", data={"trial": token_of(ann.get("/trial")), "answer": "0"})
    store.database.close()
    return store.database.path


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_study_is_told_without_a_traceback(voted, manifest, tmp_path, damage, capsys):
    with closing(sqlite3.connect(voted, isolation_level=None)) as connection:
        for statement in DAMAGE[damage]:
            connection.execute(statement)
    with pytest.raises(DatabaseFileError, match=r"votes\.sqlite cannot be read as a study"):
        read_votes(voted)
    for command in ([str(manifest)], ["export", "--output", str(tmp_path / "a.csv")]):
        assert main(["annotate", *command, "--database", str(voted)]) == 2
        assert "cannot be read as a study" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.75, 0.95])
def test_a_truncated_database_is_told(voted, manifest, tmp_path, share, capsys):
    content = voted.read_bytes()
    voted.write_bytes(content[: int(len(content) * share)])
    for command in ([str(manifest)], ["export", "--output", str(tmp_path / "a.csv")]):
        assert main(["annotate", *command, "--database", str(voted)]) == 2
        assert re.search("malformed|cannot be read as a study", capsys.readouterr().err)


def test_a_newer_format_and_what_is_no_file_are_told(voted, tmp_path):
    with closing(sqlite3.connect(voted)) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(DatabaseFileError, match="its format is 2, this version reads 1; use the version that made it"):
        read_votes(voted)
    os.mkfifo(tmp_path / "pipe.sqlite")
    for path in (tmp_path / "pipe.sqlite", tmp_path):
        with pytest.raises(DatabaseFileError, match="is no file"):
            Database(path)


def test_damage_under_a_running_server_tells_an_annotator_no_file_name(store, client, caplog):
    ann = begin(client(), "Ann")
    with closing(sqlite3.connect(store.database.path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE votes")
    answer = ann.get("/pause")
    assert answer.status_code == 503
    assert "sqlite" not in answer.text
    assert "no such table: votes" in caplog.text


def test_a_database_whose_tables_are_made_by_what_is_no_text_is_told(voted):
    """SQLite repeats the place in its message, at which Python's driver stumbles."""
    voted.write_bytes(voted.read_bytes().replace(b"UNIQUE (token)", b"UN\xd3\x87\xc7\xe6 (token)"))
    with pytest.raises(DatabaseFileError, match=r"cannot be (used as a database|read as a study)"):
        read_votes(voted)
