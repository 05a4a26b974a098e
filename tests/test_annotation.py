"""The annotation app without a browser: manifests, orders, votes, pages over HTTP, figures, exports."""

import contextlib
import io
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from annotation_study import CLASSES, COLUMNS, make_study, read_rows, write_table
from PIL import Image
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from starlette.testclient import TestClient
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from attacker_metrics.annotation import (
    Database,
    DatabaseFileError,
    Item,
    RefusedError,
    Settings,
    Store,
    create_app,
    export,
    open_study,
    overview,
    read_tasks,
    read_votes,
    serve,
)
from attacker_metrics.annotation.answers import read_answers
from attacker_metrics.annotation.database import Trial, Vote
from attacker_metrics.annotation.order import main_order, plan
from attacker_metrics.annotation.server import _LOCAL_NAMES
from attacker_metrics.commands.cli import main
from attacker_metrics.faithfulness import TableError, human_agreement, read_annotations

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "semsim_cifar100_annotations.csv"
OWNER = "a token of the owner"


@pytest.fixture
def manifest(tmp_path):
    return make_study(tmp_path / "study")


@pytest.fixture
def opened(tmp_path):
    """Opens databases, and closes them at the end."""
    databases = []

    def opened(name="votes.sqlite"):
        databases.append(Database(tmp_path / name))
        return databases[-1]

    yield opened
    for database in databases:
        database.close()


@pytest.fixture
def study(manifest, opened):
    """Makes a study, and a client for its pages."""
    clients = []

    def study(name="votes.sqlite", **settings):
        store = open_study(manifest, opened(name), **settings)
        app = create_app(store, manifest.parent, OWNER)

        def client(**options):
            clients.append(TestClient(app, base_url="http://127.0.0.1:8000", **options))
            return clients[-1]

        return store, client

    yield study
    for client in clients:
        client.close()


def made_up(count, per_original=1, candidates=("a", "b")):
    """Items without pictures."""
    return [
        Item("set", f"m{k % per_original}", "x", f"o{k}", f"r{k}", "ab"[k % 2], candidates, (f"{k // per_original}", ""))
        for k in range(count)
    ]


def answer_all(store, annotator, choose):
    """Vote on everything; ``choose(item, kind)`` is the answer."""
    while (trial := store.show(annotator).trial) is not None:
        assert store.vote(annotator, trial.token, choose(store.items[trial.item], trial.kind))


# Manifests


def test_candidates_are_the_sorted_classes_of_the_manifest(manifest):
    items = read_tasks(manifest, "category")
    assert [item.category for item in items] == [name for name in CLASSES for _ in range(2)]
    assert {item.candidates for item in items} == {CLASSES}
    assert all(item.candidates == () for item in read_tasks(manifest, "pair"))


def test_of_many_classes_twenty_are_drawn_alike_for_all_reconstructions_of_an_original(tmp_path):
    for k in range(60):  # each attack has a copy of the original
        Image.new("L", (2, 2), k // 2).save(tmp_path / f"o{k}.png")
        Image.new("L", (2, 2), k).save(tmp_path / f"r{k}.png")
    rows = [["d", f"m{k % 2}", "x", f"o{k}.png", f"r{k}.png", f"class {k // 2:02d}"] for k in range(60)]
    table = write_table(tmp_path / "many.csv", COLUMNS, rows)
    items = read_tasks(table, "category", seed=3)
    assert {len(set(item.candidates)) for item in items} == {20}
    assert all(item.category in item.candidates and list(item.candidates) == sorted(item.candidates) for item in items)
    assert all(items[k].candidates == items[k + 1].candidates for k in range(0, 60, 2))
    assert len({item.candidates for item in items}) > 20
    assert items == read_tasks(table, "category", seed=3)
    assert items != read_tasks(table, "category", seed=4)


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (2, {"class": ""}, "row 2: class is empty"),
        (3, {"reconstruction": "lenet-0.png"}, "'lenet-0.png' is in row 1 and in row 3"),
        (4, {"reconstruction": "gone.png"}, r"row 4: there is no file .*gone\.png"),
        (5, {"original": "tasks.csv"}, r"row 5: .*tasks\.csv cannot be read as an image"),
        (1, {"class": "-1"}, "row 1: class is '-1', which the annotation table cannot hold"),
        (2, {"candidates": ";".join(map(str, range(21)))}, "row 2: 21 candidates, but at most 20"),
        (2, {"candidates": "coffee;rocket"}, "row 2: the right class 'astronaut' is not among the candidates"),
        (2, {"candidates": "astronaut;coffee;coffee"}, "row 2: a candidate is empty or listed twice"),
        (2, {"candidates": "astronaut"}, "row 2: 'astronaut' is the only candidate"),
        (2, {"candidates": "astronaut;nan"}, "row 2: a candidate is named"),
        (2, {"candidates": "astronaut;7;7.0"}, "'7' and '7.0' are one class to the annotation table"),
    ],
)
def test_a_mistake_in_the_manifest_is_named_by_its_row(manifest, row, change, message):
    rows = [dict(cells) | {"candidates": ""} for cells in read_rows(manifest)]
    rows[row - 1] |= change
    write_table(manifest, [*COLUMNS, "candidates"], [list(cells.values()) for cells in rows])
    with pytest.raises(TableError, match=message):
        read_tasks(manifest, "category")


@pytest.mark.parametrize(
    "name",
    [
        "a\0b",
        "x" * 5000,
        "../" * 200 + "etc/hostname.png",
        ".",
        "pipe.png",
        "endless.png",
        "file:///etc/hostname",
        "memory://x.png",
    ],
)
def test_a_name_that_is_no_picture_is_told_by_its_row(manifest, name):
    os.mkfifo(manifest.parent / "pipe.png")
    (manifest.parent / "endless.png").symlink_to("/dev/zero")
    rows = [list(cells.values()) for cells in read_rows(manifest)]
    rows[2][4] = name
    write_table(manifest, COLUMNS, rows)
    with pytest.raises(TableError, match="row 3: there is no file") as caught:
        read_tasks(manifest, "category")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["NA", "None", "?", "-", "missing", "-1.0"])
def test_a_class_that_the_annotation_table_would_not_hold_is_refused(manifest, name):
    rows = [dict(cells) | {"candidates": f"{cells['class']};{name}"} for cells in read_rows(manifest)]
    write_table(manifest, [*COLUMNS, "candidates"], [list(cells.values()) for cells in rows])
    with pytest.raises(TableError, match=re.escape(f"row 1: a candidate is named {name!r}, which means no class")):
        read_tasks(manifest, "category")
    write_table(manifest, COLUMNS, [[*list(cells.values())[:5], name] for cells in rows])
    with pytest.raises(TableError, match=re.escape(f"row 1: class is {name!r}")):
        read_tasks(manifest, "category")


def test_two_spellings_of_one_class_are_not_two_candidates(manifest):
    rows = [list(cells.values()) for cells in read_rows(manifest)]
    rows[1][5] = "Astronaut"
    write_table(manifest, COLUMNS, rows)
    with pytest.raises(TableError, match="'Astronaut' and 'astronaut' are one class to the annotation table; rename one"):
        read_tasks(manifest, "category")


@pytest.mark.parametrize(
    ("scale", "shift", "is_refused"), [(1, 0, False), (1.1, -0.05, False), (2, -1, True), (255, 0, True), (np.nan, 0, True)]
)
def test_a_tensor_in_another_scale_is_not_shown_as_black_and_white(manifest, scale, shift, is_refused):
    rows = [list(cells.values()) for cells in read_rows(manifest)]
    np.save(manifest.parent / "floats.npy", np.linspace(0, 1, 3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8) * scale + shift)
    rows[2][4] = "floats.npy"
    write_table(manifest, COLUMNS, rows)
    if not is_refused:
        assert len(read_tasks(manifest, "category")) == 8
        return
    with pytest.raises(TableError, match=r"row 3: .*floats\.npy: \d+% of the values are outside \[0, 1\].*denormalise"):
        read_tasks(manifest, "category")


@pytest.mark.parametrize("name", ["secret-coffee.png", "./secret-coffee.png"])
def test_a_category_task_takes_no_original_as_a_reconstruction(manifest, name):
    row = {"dataset": "photographs", "model": "none", "attack": "none", "original": name, "reconstruction": name}
    with manifest.open("a") as file:
        file.write(",".join([*row.values(), "coffee"]) + "\n")
    with pytest.raises(TableError, match=rf"row 9: reconstruction '{re.escape(name)}' is an original"):
        read_tasks(manifest, "category")
    assert len(read_tasks(manifest, "pair")) == 9


def test_a_missing_column_is_named_and_a_pair_task_needs_no_class(manifest):
    rows = [list(cells.values())[:-1] for cells in read_rows(manifest)]
    write_table(manifest, COLUMNS[:-1], rows)
    with pytest.raises(TableError, match="no column 'class'"):
        read_tasks(manifest, "category")
    assert len(read_tasks(manifest, "pair")) == 8


# Orders


@pytest.mark.parametrize("count", [1, 2, 3, 8, 33, 100])
def test_four_annotators_see_each_item_once_in_every_quarter(count):
    orders = [main_order(count, annotator, seed=5) for annotator in range(4)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    places = np.argsort(np.asarray(orders), axis=1)
    assert np.allclose(places[:2].mean(axis=0), (count - 1) / 2)
    assert np.allclose(places.mean(axis=0), (count - 1) / 2)
    if count % 4 == 0:
        assert np.array_equal(np.sort(places * 4 // count, axis=0), np.repeat(np.arange(4)[:, None], count, axis=1))
    if count > 8:
        assert main_order(count, 4, seed=5) not in orders


@pytest.mark.parametrize("annotator", range(6))
@pytest.mark.parametrize(("count", "per_original"), [(3, 1), (8, 2), (60, 3), (90, 1)])
def test_a_category_task_shows_an_original_only_well_behind_its_last_reconstruction(count, per_original, annotator):
    items = made_up(count, per_original)
    trials = plan(items, "category", annotator, repeats=0.2, catch=0.2)
    kinds = Counter(trial.kind for trial in trials)
    assert kinds["main"] == count
    assert kinds["repeat"] <= -(-count // 5)
    assert 1 <= kinds["catch"] <= -(-count // 5)
    assert sorted(trial.item for trial in trials if trial.kind == "main") == list(range(count))
    gap = max(2, min(20, count // 3))
    for place, trial in enumerate(trials):
        if trial.kind == "repeat":
            first = next(k for k, other in enumerate(trials) if other.item == trial.item)
            assert trials[first].kind == "main"
            assert place - first >= gap
        if trial.kind == "catch":
            source = items[trial.item].source
            own = [k for k, other in enumerate(trials) if other is not trial and items[other.item].source == source]
            assert place - max(own) >= gap
    assert trials == plan(items, "category", annotator, repeats=0.2, catch=0.2)


@pytest.mark.parametrize("annotator", range(4))
def test_a_pair_task_shows_pairs_of_another_class_that_do_not_belong_together(annotator):
    items = made_up(40, 2)
    trials = plan(items, "pair", annotator, repeats=0.1, catch=0.5)
    kinds = Counter(trial.kind for trial in trials)
    assert kinds == {"main": 40, "repeat": 4, "catch": 20}
    for trial in trials:
        assert (trial.partner is not None) == (trial.kind == "catch")
        if trial.partner is not None:
            assert items[trial.partner].source != items[trial.item].source
            assert items[trial.partner].category != items[trial.item].category


@pytest.mark.parametrize("task", ["category", "pair"])
def test_ten_thousand_rows_are_planned_in_seconds(task):
    """While an annotator is registered, nobody else's vote can be written."""
    items, start = made_up(10_000, 5), time.process_time()
    kinds = Counter(trial.kind for trial in plan(items, task, 0, repeats=0.1, catch=0.5 if task == "pair" else 0.1))
    assert kinds == {"main": 10_000, "repeat": 1000, "catch": 5000 if task == "pair" else 1000}
    assert time.process_time() - start < 10


def test_repeats_and_catch_trials_are_not_all_at_one_place():
    trials = plan(made_up(200), "category", 0, repeats=0.2, catch=0.2)
    for kind in ("repeat", "catch"):
        places = [place for place, trial in enumerate(trials) if trial.kind == kind]
        assert len(places) == 40
        assert min(places) < 80
        assert max(places) > 200


# Votes


def test_a_vote_is_counted_once_however_often_it_is_sent(study):
    store, _ = study()
    ann = store.register("Ann")
    first = store.show(ann).trial
    assert store.vote(ann, first.token, "coffee")
    assert not store.vote(ann, first.token, "rocket")
    assert [answer.answer for answer in read_answers(store)] == ["coffee"]
    assert store.turn(ann).answered == 1


def test_only_the_last_answer_can_be_undone_and_it_stays_in_the_history(study):
    store, _ = study()
    ann = store.register("Ann")
    tokens = []
    for answer in ("coffee", "rocket", None):
        tokens.append(store.show(ann).trial.token)
        store.vote(ann, tokens[-1], answer)
    assert not store.undo(ann, tokens[1])
    assert store.undo(ann, tokens[2])
    assert not store.undo(ann, tokens[2])  # sent twice
    assert not store.undo(ann, tokens[1])  # no further back
    assert store.turn(ann).trial.token == tokens[2]
    assert store.turn(ann).undoable is None
    store.vote(ann, tokens[2], "chelsea")
    history = [(answer.answer, answer.undone) for answer in read_answers(store)]
    assert history == [("coffee", False), ("rocket", False), (None, True), ("chelsea", False)]
    assert store.turn(ann).undoable == tokens[2]


def test_nobody_can_answer_ahead_for_another_or_what_was_not_asked(study):
    store, _ = study()
    ann, bob = store.register("Ann"), store.register("Bob")
    with store.database.reading() as session:
        later = session.scalars(select(Trial).where(Trial.annotator_id == ann.id, Trial.position == 3)).one()
    assert not store.vote(ann, later.token, "coffee")
    with pytest.raises(RefusedError, match="none of yours"):
        store.vote(bob, later.token, "coffee")
    with pytest.raises(RefusedError, match="none of the answers"):
        store.vote(ann, store.turn(ann).trial.token, "elephant")
    assert read_answers(store) == []


def test_the_database_itself_refuses_a_second_vote(study):
    store, _ = study()
    ann = store.register("Ann")
    trial = store.show(ann).trial
    store.vote(ann, trial.token, None)
    with pytest.raises(IntegrityError), store.database.writing() as session:
        session.add(Vote(trial_id=trial.id, annotator_id=ann.id, answer=None, shown_at=0.0, answered_at=1.0))


def test_annotators_at_once_lose_and_double_nothing(study):
    store, _ = study()
    failures = []

    def work(name):
        try:
            annotator = store.register(name)
            while (trial := store.show(annotator).trial) is not None:
                sent = [threading.Thread(target=store.vote, args=(annotator, trial.token, "coffee")) for _ in range(2)]
                for thread in sent:
                    thread.start()
                for thread in sent:
                    thread.join()
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(f"person {k}",)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    assert sorted(annotator.number for annotator in store.annotators()) == [0, 1, 2, 3]
    counts = Counter((answer.annotator, answer.position) for answer in read_answers(store))
    assert set(counts.values()) == {1}
    assert len(counts) == sum(store.turn(annotator).total for annotator in store.annotators())


@pytest.mark.parametrize("name", ["", "   ", "=1+1", "x" * 41, "<b>", "a/b"])
def test_a_name_is_a_name(study, name):
    store, _ = study()
    with pytest.raises(RefusedError, match="1 to 40 letters"):
        store.register(name)


def test_a_name_is_taken_whatever_its_case(study):
    store, _ = study()
    assert store.register(" Zoë  B ").name == "Zoë B"
    for same in ("zoë b", "zoe\u0308 b"):
        with pytest.raises(RefusedError, match="taken"):
            store.register(same)


@pytest.mark.parametrize("name", ["प्रिया", "สมชาย", "José", "王小明", "Ann-Lou B. 2"])
def test_names_of_all_scripts_are_names(study, name):
    store, _ = study()
    assert store.register(name).name == name


def test_annotators_are_the_same_at_every_start_and_registered_together(manifest, opened, monkeypatch):
    store = open_study(manifest, opened())
    monkeypatch.setattr("attacker_metrics.annotation.server.create_app", stop)
    for names in (["Zoë  B", "bob"], ["zoë b", "Bob "]):
        with pytest.raises(KeyboardInterrupt):
            serve(store, manifest.parent, port=0, annotators=names)
    with pytest.raises(RefusedError, match="'<b>' is no name"):
        serve(store, manifest.parent, annotators=["cy", "<b>"])
    assert [annotator.name for annotator in store.annotators()] == ["Zoë B", "bob"]


def stop(*_, **__):
    raise KeyboardInterrupt


# Databases


def test_a_study_goes_on_where_it_was(manifest, opened):
    first = opened()
    store = open_study(manifest, first, task="pair", seed=7, catch=0.25)
    ann = store.register("Ann")
    store.vote(ann, store.show(ann).trial.token, "same")
    expected = store.turn(ann)
    first.close()
    again = open_study(manifest, opened())
    assert again.settings == Settings("pair", 7, 0.1, 0.25)
    assert again.items == store.items
    found = again.turn(again.annotator(ann.key))
    assert (found.answered, found.total, found.trial.token, found.undoable) == (
        *(expected.answered, expected.total),
        *(expected.trial.token, expected.undoable),
    )


def test_of_two_that_make_a_study_at_once_the_second_is_told(manifest, opened):
    first, second = opened(), opened()
    open_study(manifest, first)
    with pytest.raises(DatabaseFileError, match="start again"):
        open_study(manifest, second)


def test_two_servers_on_one_database_double_no_vote(study, opened):
    store, _ = study()
    again, ann = Store(opened()), store.register("Ann")
    for turn in range(3):
        token = store.show(ann).trial.token
        assert [each.vote(ann, token, "coffee") for each in (store, again)] == [True, False]
        assert store.turn(ann).answered == again.turn(ann).answered == turn + 1


def test_what_differs_from_the_database_is_named(manifest, opened):
    open_study(manifest, opened())
    with pytest.raises(DatabaseFileError, match=r"task is 'pair', was 'category'; catch is 0\.5, was 0\.1"):
        open_study(manifest, opened(), task="pair", catch=0.5)
    with pytest.raises(DatabaseFileError, match="seed is 1, was 0"):
        open_study(manifest, opened(), seed=1)
    rows = [list(cells.values()) for cells in read_rows(manifest)]
    write_table(manifest, COLUMNS, [*rows[:2], [*rows[2][:5], "rocket"], *rows[3:]])
    with pytest.raises(DatabaseFileError, match="row 3: category: is 'rocket', was 'chelsea'"):
        open_study(manifest, opened())
    write_table(manifest, COLUMNS, rows[:-1])
    with pytest.raises(DatabaseFileError, match="the manifest has 7 rows, had 8"):
        open_study(manifest, opened())
    write_table(manifest, COLUMNS, rows)
    Image.new("RGB", (48, 32)).save(manifest.parent / "lenet-0.png")
    with pytest.raises(DatabaseFileError, match="row 1: pictures: another picture has this name"):
        open_study(manifest, opened())


def test_a_file_that_is_no_study_is_refused_and_left_alone(manifest, tmp_path, capsys):
    with pytest.raises(DatabaseFileError, match="file is not a database"):
        Database(manifest)
    assert manifest.read_text().startswith("dataset")
    with pytest.raises(DatabaseFileError, match="no folder"):
        Database(tmp_path / "gone" / "votes.sqlite")
    with pytest.raises(DatabaseFileError, match="no such database"):
        read_votes(tmp_path / "gone.sqlite")
    assert not (tmp_path / "gone.sqlite").exists()
    other = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE study (id INTEGER)")
    before = other.read_bytes()
    for command in ([str(manifest)], ["export", "--output", str(tmp_path / "a.csv")]):
        assert main(["annotate", *command, "--database", str(other)]) == 2
        assert f"{other} holds no study of this version of the app" in capsys.readouterr().err
    assert other.read_bytes() == before


def test_a_database_that_cannot_be_written_is_told(study, manifest, opened, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("attacker_metrics.annotation.database._BUSY_SECONDS", 0.1)
    store, client = study()
    ann = begin(client())
    token, _ = fields(ann.get("/trial"))
    with contextlib.closing(sqlite3.connect(tmp_path / "votes.sqlite", isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        answer = ann.post("/vote", data={"trial": token, "answer": "0"})
        assert answer.status_code == 503
        assert "could not be saved" in answer.text
        assert "sqlite" not in answer.text
        assert "votes.sqlite cannot be written: database is locked" in caplog.text
        with pytest.raises(DatabaseFileError, match="cannot be written"):
            open_study(manifest, opened())
    assert read_answers(store) == []
    assert ann.post("/vote", data={"trial": token, "answer": "0"}).url.path == "/trial"
    assert len(read_answers(store)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "2"], "repeats is 2.0; it is a share"),
        (["--seed", "-1"], "the seed is -1"),
        (["--owner-token", "short"], "the owner's token has 5 characters"),
        (["--owner-token", "long enough & more"], "letters a-z"),
        (["--annotators", "ann,<b>"], "'<b>' is no name here; it has 1 to 40"),
        (["--port", "99999"], "--port is 99999"),
        (["--output", "x.csv"], "--output belongs to"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(manifest, tmp_path, capsys, arguments, message):
    assert main(["annotate", str(manifest), "--database", str(tmp_path / "new.sqlite"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_broken_manifest_leaves_no_database(manifest, tmp_path, capsys):
    (manifest.parent / "lenet-3.png").unlink()
    assert main(["annotate", str(manifest), "--database", str(tmp_path / "new.sqlite")]) == 2
    assert "row 7: there is no file" in capsys.readouterr().err
    assert not (tmp_path / "new.sqlite").exists()


# Pages


def begin(client, name="Ann"):
    assert client.post("/begin", data={"name": name}).url.path == "/trial"
    return client


def fields(page):
    """What the page's form would send, and the candidates."""
    token = re.search(r'name="trial" value="([^"]+)"', page.text)[1]
    choices = dict(re.findall(r'name="answer" value="(\w+)".*?<span>(.*?)</span>', page.text))
    return token, choices


def vote(client, wanted):
    token, choices = fields(client.get("/trial"))
    value = next(value for value, label in choices.items() if label == wanted)
    return client.post("/vote", data={"trial": token, "answer": value, "visible_ms": "1234"})


def test_a_category_task_holds_no_trace_of_the_original(study, manifest):
    store, client = study()
    ann = begin(client())
    annotator = store.annotators()[0]
    caught, pages = 0, set()
    while (trial := store.turn(annotator).trial) is not None:
        page = ann.get("/trial")
        token, choices = fields(page)
        item = store.items[trial.item]
        assert list(choices.values()) == [*CLASSES, "Cannot tell"]
        without_choices = re.sub(r"<fieldset>.*</fieldset>", "", page.text, flags=re.DOTALL)
        for told in (*CLASSES, "secret", item.model, item.reconstruction, "blur", "photographs", "catch", "repeat"):
            assert told not in without_choices
        tokens_aside = re.sub(r'/picture/[\w-]+|value="[\w-]+"|Picture \d+', "", page.text)
        undo_aside = re.sub(r'<form method="post" action="/undo">.*?</form>', "", tokens_aside, flags=re.DOTALL)
        pages.add(" ".join(undo_aside.split()))
        assert ann.get(f"/original/{token}").status_code == 404
        assert "original" not in page.text.lower()
        answer = ann.get(f"/picture/{token}")
        assert answer.headers["cache-control"] == "no-store"
        assert set(answer.headers) == set(ann.get(f"/picture/{token}").headers)
        assert "etag" not in answer.headers
        assert "last-modified" not in answer.headers
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert (picture.format, picture.mode, picture.size, picture.info) == ("PNG", "RGB", (48, 32), {})
            shown = np.asarray(picture).astype(float)
        source = manifest.parent / (item.reconstruction if trial.kind != "catch" else item.original)
        with Image.open(source) as file:
            assert np.abs(shown - np.asarray(file.convert("RGB").resize((48, 32), Image.Resampling.LANCZOS))).max() <= 1
        caught += trial.kind == "catch"
        vote(ann, "coffee")
        assert ann.get(f"/picture/{token}").status_code == 404  # it was that trial's
    assert caught == 1
    assert len(pages) == 1  # whatever the kind of trial


def test_a_pair_task_shows_original_and_reconstruction(study, manifest):
    store, client = study(task="pair", catch=1.0)
    ann = begin(client())
    kinds = set()
    while (trial := store.turn(store.annotators()[0]).trial) is not None:
        token, choices = fields(ann.get("/trial"))
        assert list(choices.values()) == ["Same", "Different", "Cannot tell"]
        shown = store.items[trial.item if trial.partner is None else trial.partner]
        with (
            Image.open(io.BytesIO(ann.get(f"/original/{token}").content)) as found,
            Image.open(manifest.parent / shown.original) as file,
        ):
            expected = np.asarray(file.convert("RGB").resize((48, 32), Image.Resampling.LANCZOS)).astype(float)
            assert np.abs(np.asarray(found) - expected).max() <= 1
        kinds.add(trial.kind)
        vote(ann, "Different" if trial.kind == "catch" else "Same")
    assert kinds == {"main", "repeat", "catch"}
    (figures,) = overview(store).annotators
    assert figures.recognized.value == figures.catch_right.value == figures.repeats_alike.value == 1
    assert figures.false_alarms.value == 0
    assert figures.median_seconds == 1.234


def test_pictures_are_served_to_their_annotator_at_their_turn_only(study):
    store, client = study()
    ann, bob, nobody = begin(client(), "Ann"), begin(client(), "Bob"), client()
    token, _ = fields(ann.get("/trial"))
    with store.database.reading() as session:
        later = session.scalars(select(Trial).where(Trial.annotator_id == 1, Trial.position == 1)).one().token
    assert ann.get(f"/picture/{token}").status_code == 200
    assert ann.get(f"/picture/{later}").status_code == 404
    assert bob.get(f"/picture/{token}").status_code == nobody.get(f"/picture/{token}").status_code == 404
    for path in ("/tasks.csv", "/secret-coffee.png", "/static/../secret-coffee.png", "/picture/secret-coffee.png"):
        assert ann.get(path).status_code == 404


def test_a_form_that_is_sent_again_changes_nothing(study):
    store, client = study()
    ann = begin(client())
    token, _ = fields(ann.get("/trial"))
    for answer in ("0", "1", "none"):
        assert ann.post("/vote", data={"trial": token, "answer": answer}).url.path == "/trial"
    assert [answer.answer for answer in read_answers(store)] == [CLASSES[0]]
    for _ in range(2):
        ann.post("/undo", data={"trial": token})
    assert fields(ann.get("/trial"))[0] == token
    assert [answer.undone for answer in read_answers(store)] == [True]


@pytest.mark.parametrize("data", [{"answer": "4"}, {"answer": "coffee"}, {}, {"trial": "x", "answer": "0"}])
def test_a_form_that_no_page_sends_is_refused(study, data):
    store, client = study()
    ann = begin(client())
    token, _ = fields(ann.get("/trial"))
    answer = ann.post("/vote", data={"trial": token} | data)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert read_answers(store) == []
    assert ann.post("/vote", content=b"x" * 10000).status_code == 400


def test_forms_of_other_sites_and_other_host_names_are_refused(study, manifest):
    store, client = study()
    ann = begin(client())
    token, _ = fields(ann.get("/trial"))
    data = {"trial": token, "answer": "0"}
    own = {"Origin": "http://127.0.0.1:8000"}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        own | {"Sec-Fetch-Site": "same-site"},
    ):
        assert ann.post("/vote", data=data, headers=headers).status_code == 403
    assert read_answers(store) == []
    behind_a_proxy = {"Origin": "https://study.example", "Sec-Fetch-Site": "same-origin"}
    for headers in (own, behind_a_proxy):
        assert ann.post("/vote", data=data, headers=headers).status_code == 200
    assert len(read_answers(store)) == 1
    local = create_app(store, manifest.parent, OWNER, hosts=_LOCAL_NAMES)
    for host, status in (("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:8000", 200), ("evil.example", 400)):
        with TestClient(local, base_url="http://127.0.0.1") as visitor:
            assert visitor.get("/", headers={"Host": host}).status_code == status


def test_every_page_forbids_whatever_comes_from_elsewhere(study):
    _, client = study()
    ann = begin(client())
    ann.get(f"/owner?token={OWNER}")
    for path in ("/", "/trial", "/pause", "/owner", "/a/1-x", "/nowhere", "/static/pages.css", "/static/keys.js"):
        answer = ann.get(path)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert re.findall(r"(?:https?:)?//[a-z]", answer.text.replace("http://www.w3.org", "")) == []
        assert ("max-age=3600" if "static" in path else "no-store") == answer.headers["cache-control"]


def test_a_personal_link_brings_an_annotator_back(study):
    store, client = study()
    key = re.search(r"/a/([\w-]+)", begin(client()).get("/pause").text)[1]
    elsewhere = client()
    assert elsewhere.get(f"/a/{key}").url.path == "/trial"
    vote(elsewhere, "coffee")
    assert [answer.annotator for answer in read_answers(store)] == ["Ann"]
    for wrong in (key[:-1], f"9{key}", "1-", "x", "1-%FF", "٣-a"):
        assert client().get(f"/a/{wrong}").status_code == 404
    stranger = client()
    for path in ("/trial", "/pause"):
        assert stranger.get(path).url.path == "/"
    assert stranger.post("/vote", data={"trial": "x"}).url.path == "/"


def test_a_closed_study_takes_no_new_names(manifest, opened):
    store = open_study(manifest, opened())
    app = create_app(store, manifest.parent, OWNER, open_to_all=False)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert 'name="name"' not in client.get("/").text
        assert client.post("/begin", data={"name": "Ann"}).status_code == 400
    assert store.annotators() == []


def test_the_owners_pages_need_the_token(study):
    _, client = study()
    vote(begin(client()), "coffee")
    visitor = client()
    pages = ("/owner", "/owner/annotations.csv", "/owner/answers.csv")
    for path in (*pages, "/owner?token=", "/owner?token=guess", f"/owner?token={OWNER}x"):
        assert visitor.get(path).status_code == 403
    page = visitor.get("/owner", params={"token": OWNER})
    assert (page.status_code, page.url.path, page.url.query) == (200, "/owner", b"")
    assert OWNER not in page.text
    assert all(visitor.get(path).status_code == 200 for path in pages)
    assert visitor.get("/owner", params={"token": "guess"}).status_code == 403


def test_whoever_sends_their_name_twice_is_one_person(study):
    """A click that nothing seems to follow is repeated, and a browser gives up the first answer with its cookie."""
    store, client = study()
    form = {"name": "Ann", "token": re.search(r'name="token" value="([\w-]{22})"', client().get("/").text)[1]}
    client().post("/begin", data=form)
    again = client()
    assert again.post("/begin", data=form).url.path == "/trial"
    assert [annotator.name for annotator in store.annotators()] == ["Ann"]
    assert client().post("/begin", data=form | {"token": "x" * 22}).status_code == 400
    assert client().post("/begin", data=form | {"token": ""}).status_code == 400
    assert again.post("/begin", data=form | {"name": "Bob"}).url.path == "/trial"  # the page came back from the history
    ann, bob = store.annotators()
    assert (ann.token, bob.name) == (form["token"], "Bob")
    assert bob.token != ann.token


def test_a_picture_that_has_gone_is_told_to_the_owner_only(study, manifest, caplog):
    _, client = study()
    ann = begin(client())
    token, _ = fields(ann.get("/trial"))
    for file in manifest.parent.glob("*net-*.png"):
        file.unlink()
    answer = ann.get(f"/picture/{token}")
    assert answer.status_code == 500
    assert ".png" not in answer.text
    assert "net-" in caplog.text


@pytest.mark.parametrize(
    ("task", "changed", "page"), [("category", "*net-*.png", "picture"), ("pair", "secret-*", "original")]
)
def test_a_picture_that_another_one_has_replaced_is_not_judged(study, manifest, caplog, task, changed, page):
    _, client = study(task=task, catch=0)
    ann = begin(client())
    token, _ = fields(ann.get("/trial"))
    assert ann.get(f"/{page}/{token}").status_code == 200
    for file in manifest.parent.glob(changed):
        Image.new("RGB", (48, 32)).save(file)
    assert ann.get(f"/{page}/{token}").status_code == 500
    assert "is another picture than at the start of the study" in caplog.text


# Figures and exports


def test_the_figures_are_those_that_one_counts_by_hand(study):
    store, _ = study(repeats=0.5, catch=0.5)
    ann, bob = store.register("Ann"), store.register("Bob")
    assert overview(store).fleiss_kappa is None
    answer_all(store, ann, lambda item, kind: item.category)
    answer_all(
        store, bob, lambda item, kind: None if item.model == "lenet" else "coffee" if kind == "repeat" else item.category
    )
    found = overview(store)
    first, second = found.annotators
    assert (first.recognized.value, first.cannot_tell.value, first.catch_right.value, first.repeats_alike.value) == (
        1,
        0,
        1,
        1,
    )
    assert (second.recognized.value, second.cannot_tell.value) == (0.5, 0.5)
    trials = plan(store.items, "category", 1, repeats=0.5, catch=0.5)
    alike = [
        store.items[trial.item].model == "lenet" or store.items[trial.item].category == "coffee"
        for trial in trials
        if trial.kind == "repeat"
    ]
    assert (second.repeats_alike.hits, second.repeats_alike.count) == (sum(alike), len(alike))
    assert second.progress.hits == second.progress.count == len(trials)
    assert found.common == 8
    assert found.chance == 0.25
    table = np.asarray([[1] * 8, [0, 1] * 4])
    assert found.fleiss_kappa == pytest.approx(fleiss_kappa(aggregate_raters(table.T, n_cat=2)[0]), abs=1e-12)
    assert found.krippendorff_alpha == pytest.approx(
        krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"), abs=1e-12
    )


@pytest.mark.parametrize("task", ["category", "pair"])
def test_both_commands_take_the_exported_table(task, study, manifest, tmp_path, capsys):
    store, client = study(task=task)
    rng = np.random.default_rng(0)
    people = [store.register(name) for name in ("Ann", "Bob B.", "cy")]
    for person in people[:2]:
        answer_all(store, person, lambda item, kind: rng.choice([*store_answers(item, task), None], p=[0.6, 0.2, 0.2]))
    for _ in range(3):  # the third has only begun
        trial = store.show(people[2]).trial
        store.vote(people[2], trial.token, None)
    table = tmp_path / "out" / "annotations.csv"
    command = ["annotate", "export", "--database", str(tmp_path / "votes.sqlite"), "--output", str(table)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"wrote {table}\nwrote {table.with_name('annotations-answers.csv')}\n"
    rows = read_rows(table)
    assert list(rows[0]) == [
        *COLUMNS[:5],
        *(["class"] if task == "category" else []),
        *("annotator_Ann", "annotator_Bob B.", "annotator_cy"),
    ]
    assert [row["reconstruction"] for row in rows] == [item.reconstruction for item in store.items]
    read, kept = read_annotations(table), read_votes(tmp_path / "votes.sqlite")
    assert list(read.votes) == list(kept.votes)
    for name in read.votes:
        np.testing.assert_array_equal(read.votes[name], kept.votes[name])
        given = {a.item: float(a.right) for a in read_answers(store) if a.annotator == name and a.kind == "main"}
        assert {k: v for k, v in enumerate(read.votes[name]) if v == v} == given
    assert np.isnan(read.votes["cy"]).sum() > 0
    cannot_tell = "-1" if task == "category" else "0"
    assert {row["annotator_cy"] for row in rows} == {"", cannot_tell}

    answers = read_rows(table.with_name("annotations-answers.csv"))
    assert len(answers) == len(read_answers(store))
    assert {row["kind"] for row in answers} == {"main", "repeat", "catch"}
    assert all(float(row["seconds"]) >= 0 for row in answers)
    with_original = {row["kind"] for row in answers if row["shown_original"]}
    assert with_original == ({"catch"} if task == "category" else {"main", "repeat", "catch"})

    scores = write_table(
        tmp_path / "scores.csv", ["reconstruction", "mine"], [[item.reconstruction, k] for k, item in enumerate(store.items)]
    )
    files = ["--annotations", str(table), "--scores", str(scores), "--direction", "mine=higher", "--draws", "100"]
    assert main(["faithfulness", *files]) == 0
    for page, content in (("annotations.csv", table), ("answers.csv", table.with_name("annotations-answers.csv"))):
        owner = client()
        owner.get("/owner", params={"token": OWNER})
        assert owner.get(f"/owner/{page}").content.decode() == content.read_bytes().decode()


def store_answers(item, task):
    wrong = next(name for name in CLASSES if name != item.category)
    return (item.category, wrong) if task == "category" else ("same", "different")


def test_semsim_trains_on_the_exported_table(study, manifest, tmp_path, capsys):
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    pytest.importorskip("lightning", reason="lightning is not installed")
    store, _ = study()
    answer_all(store, store.register("Ann"), lambda item, kind: item.category if item.model == "lenet" else None)
    table, _ = export(tmp_path / "votes.sqlite", tmp_path / "annotations.csv")
    options = ["--images", str(manifest.parent), "--output", str(tmp_path / "run"), "--epochs", "1", "--batch-size", "2"]
    options += ["--accelerator", "cpu", "--devices", "1"]
    assert main(["semsim", "train", "--annotations", str(table), *options]) == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "semsim.safetensors").is_file()


def test_without_votes_there_is_nothing_to_export(study, tmp_path, capsys):
    store, client = study()
    store.register("Ann")
    for message in ("export",):
        assert (
            main(["annotate", message, "--database", str(tmp_path / "votes.sqlite"), "--output", str(tmp_path / "a.csv")])
            == 2
        )
    assert "holds no vote yet" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()
    owner = client()
    owner.get("/owner", params={"token": OWNER})
    assert owner.get("/owner/annotations.csv").status_code == 400
    with pytest.raises(ValueError, match=r"must end in \.csv"):
        export(tmp_path / "votes.sqlite", tmp_path / "a.parquet")


def test_the_owners_figures_of_the_published_annotations(opened):
    """8,400 reconstructions and five real annotators: the figures of statsmodels, krippendorff and of the source."""
    if not PUBLISHED.is_file():
        pytest.skip("the published annotations are not part of the repository")
    rows = read_rows(PUBLISHED)
    named = np.asarray([[row[f"ann{k}"] for k in range(1, 6)] for row in rows])
    truth = np.asarray([row["class_id"] for row in rows])
    items = [
        Item(
            dataset="cifar100",
            model=row["model"],
            attack="inverting gradients",
            original=row["image_id"],
            reconstruction=f"{row['model']}/{row['image_id']}",
            category=row["class_id"],
            candidates=tuple(sorted({row["class_id"], *given} - {"-1"})),
            pictures=("", ""),
        )
        for row, given in zip(rows, named, strict=True)
    ]
    store = Store.create(opened(), Settings("category", repeats=0, catch=0), items)
    for k in range(5):
        annotator = store.register(f"ann{k + 1}")
        with store.database.writing() as session:
            trials = session.execute(select(Trial.id, Trial.item).where(Trial.annotator_id == annotator.id)).all()
            votes = [
                {
                    "trial_id": trial,
                    "annotator_id": annotator.id,
                    "answer": None if named[item, k] == "-1" else named[item, k],
                    "shown_at": 0.0,
                    "answered_at": 1.0 + k,
                }
                for trial, item in trials
            ]
            session.execute(insert(Vote), votes)
    found = overview(store)
    table = (named == truth[:, None]).astype(int)
    assert found.fleiss_kappa == pytest.approx(fleiss_kappa(aggregate_raters(table, n_cat=2)[0]), abs=1e-12)
    assert round(found.fleiss_kappa, 3) == 0.374
    alpha = krippendorff.alpha(reliability_data=table.T, level_of_measurement="nominal")
    assert found.krippendorff_alpha == pytest.approx(alpha, abs=1e-12)
    assert found.common == 8400
    assert [figures.recognized.hits for figures in found.annotators] == table.sum(axis=0).tolist()
    assert [figures.cannot_tell.hits for figures in found.annotators] == (named == "-1").sum(axis=0).tolist()
    assert [figures.median_seconds for figures in found.annotators] == [1, 2, 3, 4, 5]
    humans = human_agreement(read_votes(store.database.path), draws=2)
    assert (humans.fleiss_kappa, humans.krippendorff_alpha) == (found.fleiss_kappa, found.krippendorff_alpha)


def test_without_its_extra_the_command_says_what_to_install_and_others_do_without(tmp_path):
    code = (
        "import sys; from attacker_metrics.commands.cli import main;"
        "print({'starlette', 'sqlalchemy', 'uvicorn'} & set(sys.modules)); sys.modules['starlette'] = None;"
        "sys.exit(main(['annotate', 'tasks.csv', '--database', 'votes.sqlite']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "set()\n")
    assert "needs starlette" in done.stderr
    assert re.search(r"pip install .*\[annotate\]", done.stderr)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_an_export_never_writes_over_the_tasks(study, manifest, tmp_path, capsys, options, link):
    store, _ = study(task="category")
    annotator = store.register("ann")
    store.vote(annotator, store.show(annotator).trial.token, None)
    output = manifest if link is None else tmp_path / "annotations.csv"
    if link is not None:
        getattr(output, link)(manifest)
    before = manifest.read_bytes()
    assert main(["annotate", "export", "--database", str(store.database.path), "--output", str(output), *options]) == 2
    assert f"{output} is the list of this study's tasks" in capsys.readouterr().err
    assert manifest.read_bytes() == before
