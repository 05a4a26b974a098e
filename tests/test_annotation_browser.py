"""The annotation app in a real browser (Chromium by Playwright), served by the real command in a process of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from annotation_study import CLASSES, make_study
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from attacker_metrics.annotation import Database, Store, create_app, open_study, read_votes
from attacker_metrics.annotation.answers import read_answers
from attacker_metrics.commands.cli import main

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
OWNER = "a-token-of-the-owner"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 740}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--no-first-run"])
        yield browser
        browser.close()


@contextmanager
def serving(manifest, database, *options, port=0):
    """The command, running; yields its process and address. Whatever happens, it ends."""
    command = [sys.executable, "-m", "attacker_metrics", "annotate", str(manifest), "--database", str(database)]
    command += ["--port", str(port), *options]
    environment = os.environ | {"ATTACKER_METRICS_BACKEND": "torch", "ATTACKER_METRICS_OWNER_TOKEN": OWNER}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = process.stdout.readline()
            if not line.startswith("annotators: "):
                raise AssertionError(process.stderr.read())
            yield process, line.split()[1].rstrip("/")
        finally:
            process.kill()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


@contextmanager
def serving_here(manifest, path, **settings):
    """The same server in a thread, which needs no seconds to start; yields its address and the votes' file."""
    with closing(Database(path)) as database, socket.create_server(("127.0.0.1", 0)) as listening:
        app = create_app(open_study(manifest, database, **settings), manifest.parent, OWNER)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", path
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def category(manifest, tmp_path_factory):
    with serving_here(manifest, tmp_path_factory.mktemp("category") / "votes.sqlite") as served:
        yield served


@pytest.fixture(scope="module")
def pair(manifest, tmp_path_factory):
    with serving_here(manifest, tmp_path_factory.mktemp("pair") / "votes.sqlite", task="pair") as served:
        yield served


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    """Twenty candidates with longer names."""
    folder = tmp_path_factory.mktemp("twenty")
    manifest = make_study(folder)
    names = ";".join(f"{CLASSES[k % 4]} {'with a long name ' * (k % 3)}{k // 4}".strip() for k in range(16))
    lines = manifest.read_text().splitlines()
    rows = [f"{line},{names};{';'.join(CLASSES)}" for line in lines[1:]]
    manifest.write_text("\n".join([f"{lines[0]},candidates", *rows]) + "\n")
    with serving_here(manifest, folder / "votes.sqlite") as served:
        yield served


@pytest.fixture
def person(browser):
    """Opens a browser window of its own for an annotator, and begins."""
    contexts = []

    def person(address, name, **options):
        context = browser.new_context(**{"viewport": DESKTOP} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.goto(address)
        page.get_by_label("Your name, or a pseudonym").fill(name)
        page.get_by_role("button", name="Begin").click()
        expect(page).to_have_url(f"{address}/trial")
        return page

    yield person
    for context in contexts:
        context.close()


def place(page):
    """Number of the picture that is shown."""
    return int(re.match(r"Picture (\d+) of", page.title())[1])


def until_seen(page):
    """Wait for the pictures, and as long as nobody can have judged them.

    By asking often, because the pages' policy forbids Playwright's own way, which needs eval.
    """
    for _ in range(400):
        if page.locator("figure img").evaluate_all("all => all.every((image) => image.complete && image.naturalWidth > 0)"):
            page.wait_for_timeout(350)
            return
        page.wait_for_timeout(25)
    raise AssertionError("the pictures did not come")


def press(page, key):
    """Press a key when the pictures are there, and wait for the next page."""
    until_seen(page)
    token = page.locator("#answers input[name=trial]")
    before = token.input_value()
    page.keyboard.press(key)
    expect(token).not_to_have_value(before)
    page.wait_for_load_state()


def press_last(page, key):
    until_seen(page)
    page.keyboard.press(key)
    expect(page.get_by_role("heading", name="That was the last picture")).to_be_visible()


def answers_in(database, name):
    with closing(Database(database)) as opened:
        return [answer for answer in read_answers(Store(opened)) if answer.annotator == name]


def test_a_category_session_by_keyboard(category, person):
    address, database = category
    page = person(address, "Ann")
    seen, wrong = [], []
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.reload()
    total = int(page.locator("progress").get_attribute("max"))
    pressed = []
    for k in range(total):
        assert place(page) == k + 1
        pressed.append("1234x"[k % 5])
        if k == 3:  # changes their mind
            press(page, "4")
            press(page, "u")
            assert place(page) == 4
            expect(page.get_by_role("button", name="Undo last answer")).to_have_count(0)
        if k == 5:  # a pause, by key
            page.keyboard.press("p")
            expect(page.get_by_role("heading", name="Pause")).to_be_visible()
            page.keyboard.press("p")
            expect(page).to_have_url(f"{address}/trial")
        press(page, pressed[-1]) if k < total - 1 else press_last(page, pressed[-1])
    given = answers_in(database, "Ann")
    counted = [answer for answer in given if not answer.undone]
    assert [answer.answer for answer in counted] == [
        dict(zip("1234x", (*CLASSES, None), strict=True))[key] for key in pressed
    ]
    assert [answer.answer for answer in given if answer.undone] == ["rocket"]
    assert all(0 <= answer.visible_seconds <= answer.seconds + 0.05 for answer in given)
    assert wrong == []
    assert all(url.startswith(f"{address}/") for url in seen)
    assert not any(told in url for url in seen for told in ("secret", "original", *CLASSES, ".png", "net-"))
    assert len({url for url in seen if "/picture/" in url}) == total


def test_a_pair_session_by_keyboard(pair, person):
    address, database = pair
    page = person(address, "Ann")
    expect(page.get_by_alt_text("The original picture")).to_be_visible()
    total = int(page.locator("progress").get_attribute("max"))
    for k in range(total):
        press(page, "sdx"[k % 3]) if k < total - 1 else press_last(page, "sdx"[k % 3])
    page.keyboard.press("u")
    expect(page).to_have_title(re.compile(f"Picture {total} of {total}"))
    given = [answer for answer in answers_in(database, "Ann") if not answer.undone]
    assert [answer.answer for answer in given] == [("same", "different", None)[k % 3] for k in range(total - 1)]
    assert {answer.kind for answer in answers_in(database, "Ann")} == {"main", "repeat", "catch"}


def test_two_annotators_at_once(category, person):
    address, database = category
    ann, bob = person(address, "Both A"), person(address, "Both B")
    for k in range(4):
        until_seen(ann)
        until_seen(bob)
        ann.keyboard.press("1")  # neither waits for the other
        bob.keyboard.press("2")
        for page in (ann, bob):
            expect(page).to_have_title(re.compile(f"Picture {k + 2} of"))
            page.wait_for_load_state()
    for name, answer in (("Both A", CLASSES[0]), ("Both B", CLASSES[1])):
        assert [given.answer for given in answers_in(database, name)] == [answer] * 4
    orders = [[given.item for given in answers_in(database, name)] for name in ("Both A", "Both B")]
    assert orders[0] != orders[1]


def test_the_server_is_killed_in_mid_study_and_nothing_is_lost(manifest, person, tmp_path):
    database = tmp_path / "votes.sqlite"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with serving(manifest, database, port=port) as (process, address):
        page = person(address, "Ann")
        for key in "123":
            press(page, key)
        total = int(page.locator("progress").get_attribute("max"))
        owners = [page.request.get(f"{address}/owner", params={"token": token}).status for token in (OWNER, "wrong")]
        assert owners == [200, 403]
        assert OWNER.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.send_signal(signal.SIGKILL)
        process.wait()
    with serving(manifest, database, "--annotators", "Ann, Bob", port=port) as (process, address):
        press(page, "4")  # the page that was open goes on
        assert place(page) == 5
        page.go_back()
        page.reload()
        assert place(page) == 5
        for k in range(5, total + 1):
            press(page, "x") if k < total else press_last(page, "x")
        process.terminate()  # as a service manager does; all votes are in the one file then, as after Ctrl-C
        assert process.wait(20) == 0
        owner, ann, bob, stopped = process.stdout.read().splitlines()
        assert f"{address}/owner?token={OWNER}" in owner
        assert (ann.split(": ")[0], bob.split(": ")[0]) == ("Ann", "Bob")
        assert f": {address}/a/2-" in bob
        assert stopped == f"stopped; the votes are in {database}."
        assert process.stderr.read() == ""
    assert not database.with_name("votes.sqlite-wal").exists()
    given = answers_in(database, "Ann")
    assert [answer.answer for answer in given] == [*CLASSES, *[None] * (len(given) - 4)]
    assert [answer.position for answer in given] == list(range(len(given)))
    (votes,) = read_votes(database).votes.values()
    assert np.isfinite(votes).all()
    assert main(["annotate", "export", "--database", str(database), "--output", str(tmp_path / "a.csv")]) == 0


def test_without_javascript_the_buttons_vote(category, person):
    address, database = category
    page = person(address, "Plain", java_script_enabled=False)
    page.get_by_role("button", name="coffee").click()
    page.get_by_role("button", name="Cannot tell").click()
    page.get_by_role("button", name="Undo last answer").click()
    page.get_by_role("button", name="rocket").click()
    expect(page.get_by_text("Picture 3 of")).to_be_visible()
    given = answers_in(database, "Plain")
    assert [(answer.answer, answer.undone) for answer in given] == [("coffee", False), (None, True), ("rocket", False)]
    assert all(answer.visible_seconds is None for answer in given)


def test_a_screen_reader_finds_names_and_the_focus_is_seen(category, person):
    address, _ = category
    page = person(address, "Reader")
    group = page.get_by_role("group", name="Your answer")
    labels = [button.get_attribute("value") for button in group.get_by_role("button").all()]
    assert labels == ["0", "1", "2", "3", "none"]
    for name in (*CLASSES, "Cannot tell"):
        expect(group.get_by_role("button", name=name, exact=True)).to_have_count(1)
    expect(page.get_by_role("img", name="The picture to judge", exact=True)).to_have_count(1)
    expect(page.get_by_role("progressbar", name=re.compile("Picture 1 of"))).to_have_count(1)
    assert page.locator("html").get_attribute("lang") == "en"
    until_seen(page)
    page.keyboard.press("Tab")
    focused = page.evaluate("[document.activeElement.value, getComputedStyle(document.activeElement).outlineStyle]")
    assert focused == ["0", "solid"]
    page.keyboard.press("Enter")
    expect(page).to_have_title(re.compile("Picture 2 of"))
    page.get_by_label("Keyboard shortcuts").uncheck()  # speech input sends letters
    page.keyboard.press("1")
    page.reload()
    assert place(page) == 2
    assert not page.get_by_label("Keyboard shortcuts").is_checked()


def test_shortcuts_that_are_off_are_off_on_every_page(category, person):
    address, database = category
    page = person(address, "Speaker")
    total = int(page.locator("progress").get_attribute("max"))
    page.get_by_label("Keyboard shortcuts").uncheck()
    for k in range(total):
        until_seen(page)
        page.get_by_role("button", name="Cannot tell").click()
        expect(page).to_have_title(re.compile(f"Picture {k + 2} of" if k < total - 1 else "Done"))
    page.keyboard.press("u")
    page.wait_for_timeout(300)
    expect(page.get_by_role("heading", name="That was the last picture")).to_be_visible()
    page.goto(f"{address}/pause")
    page.keyboard.press("p")
    page.wait_for_timeout(300)
    expect(page).to_have_url(f"{address}/pause")
    assert not any(answer.undone for answer in answers_in(database, "Speaker"))


@pytest.mark.parametrize(
    ("key", "code", "answer"),
    [
        ("1", "Digit1", CLASSES[0]),
        ("&", "Digit1", CLASSES[0]),  # French: digits need Shift
        ("\u0447", "KeyX", None),  # Russian
        ("!", "Slash", ...),
        ("e", "KeyX", ...),  # a Latin letter is itself, wherever it lies
        ("\u00fc", "KeyX", ...),
    ],
)
def test_keys_are_what_is_printed_on_them_in_every_layout(category, person, key, code, answer):
    address, database = category
    name = f"Layout {ord(key)}"
    page = person(address, name)
    until_seen(page)
    page.evaluate("event => document.dispatchEvent(new KeyboardEvent('keydown', event))", {"key": key, "code": code})
    page.wait_for_timeout(300)
    assert [given.answer for given in answers_in(database, name)] == ([] if answer is ... else [answer])


def test_a_double_click_votes_once(category, person):
    address, database = category
    page = person(address, "Double")
    until_seen(page)
    page.get_by_role("button", name="coffee").click()
    expect(page).to_have_title(re.compile("Picture 2 of"))
    page.get_by_role("button", name="coffee").click()
    page.keyboard.press("1")
    page.wait_for_timeout(300)
    assert place(page) == 2
    press(page, "1")
    assert len(answers_in(database, "Double")) == 2


def test_no_vote_on_a_picture_that_did_not_come(category, person):
    address, database = category
    page = person(address, "Missing")
    expect(page.get_by_role("alert")).to_have_count(0)
    page.route("**/picture/*", lambda route: route.fulfill(status=500, body="unreadable"))
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("tell the owner of the study")
    page.wait_for_timeout(350)
    page.get_by_role("button", name="Cannot tell").click()
    page.wait_for_timeout(200)
    assert place(page) == 1
    assert answers_in(database, "Missing") == []


def test_no_vote_before_the_picture_is_there(category, person):
    address, database = category
    page = person(address, "Early")
    held = []
    page.route("**/picture/*", lambda route: route.continue_() if held else held.append(route))
    page.goto(f"{address}/trial", wait_until="commit")
    page.wait_for_selector("#answers")
    page.wait_for_timeout(100)
    page.keyboard.press("1")
    page.wait_for_timeout(200)
    assert answers_in(database, "Early") == []
    held[0].continue_()
    press(page, "1")
    assert len(answers_in(database, "Early")) == 1


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("task", ["category", "pair", "twenty"])
def test_pages_fit_the_screen(task, viewport, request, person, tmp_path):
    address, _ = request.getfixturevalue(task)
    is_phone = viewport is PHONE
    page = person(address, f"fit {is_phone}", viewport=viewport, has_touch=is_phone, is_mobile=is_phone)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=tmp_path / f"{task}.png")
    with Image.open(tmp_path / f"{task}.png") as shot:
        assert shot.size == (viewport["width"], viewport["height"])
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    for picture in page.locator("figure img").all():
        box = picture.bounding_box()
        assert box["y"] + box["height"] <= viewport["height"]
        assert min(box["width"], box["height"]) >= 150
    for button in page.locator("#answers button").all():
        box = button.bounding_box()
        assert box["height"] >= 44  # a finger's width
        assert task == "twenty" or box["y"] + box["height"] <= viewport["height"]  # no scrolling for few answers
        assert not is_phone or button.locator("kbd").is_hidden()
    page.locator("#answers button").last.scroll_into_view_if_needed()
    assert page.locator("figure img").first.bounding_box()["y"] >= 0  # in sight beside the last answer
    for path in ("/pause", f"/owner?token={OWNER}"):
        page.goto(f"{address}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
