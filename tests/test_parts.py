"""What an unfinished run keeps, and pairs that are loaded ahead of the computation."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("rich", reason="needs the cli extra")
import pyarrow as pa
import torch

from attacker_metrics.evaluation.run import default_part_size
from attacker_metrics.evaluation.scoring import PartScores, RunScores
from attacker_metrics.jobs.parts import FOLDER, ResumeError, UnfinishedRun
from attacker_metrics.jobs.processes import AgreedError, Processes, _OwnStore
from attacker_metrics.pairs.loading import PartRows, load_ahead, share_cores
from attacker_metrics.pairs.sources import FailedPair, LoadedPair


def table(start: int, stop: int) -> pa.Table:
    return pa.table({"row": list(range(start, stop))})


def begun(output, total=10, size=4, **settings):
    run = UnfinishedRun(output)
    return run, run.begin({"gamma": [2.0], **settings}, total, size, 1, resume=True)


def test_parts_come_back_in_order_and_only_missing_ones_remain(tmp_path):
    run, plan = begun(tmp_path / "out")
    assert (plan.remaining, plan.parts, plan.remaining_pairs) == ([0, 1, 2], 3, 10)
    for part in (2, 0):
        run.write(part, table(*plan.rows(part)))
    again, plan = begun(tmp_path / "out")
    assert (plan.remaining, plan.remaining_pairs) == ([1], 4)
    with pytest.raises(ResumeError, match="part 1 is missing"):
        list(again.tables(plan))
    again.write(1, table(*plan.rows(1)))
    assert [part["row"].to_pylist() for part in again.tables(plan)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    again.write(1, table(*plan.rows(1)))  # by a process that was slow, not dead
    assert again.done == 3


@pytest.mark.parametrize("position", [0, 0.3, 0.5, 0.99])
def test_a_flipped_bit_anywhere_costs_the_part(tmp_path, position):
    run, plan = begun(tmp_path)
    for part in plan.remaining:
        run.write(part, table(*plan.rows(part)))
    (path,) = (tmp_path / FOLDER).glob("part-000000001-*")
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(ResumeError, match=r"part 1 .*damaged"):
        list(run.tables(plan))
    assert begun(tmp_path)[1].remaining == [1]


@pytest.mark.parametrize("length", [0, 1, 200])
def test_a_cut_part_is_done_again(tmp_path, length):
    run, plan = begun(tmp_path)
    run.write(0, table(*plan.rows(0)))
    (path,) = (tmp_path / FOLDER).glob("part-*")
    path.write_bytes(path.read_bytes()[:length])
    assert begun(tmp_path)[1].remaining == [0, 1, 2]
    assert not path.exists()


def test_other_settings_are_refused_by_name(tmp_path):
    begun(tmp_path)
    with pytest.raises(ResumeError, match=r"gamma is \[3.0\], was \[2.0\]; .*blur is 1, was None") as caught:
        begun(tmp_path, gamma=[3.0], blur=1)
    assert "part_size" not in str(caught.value)
    with pytest.raises(ResumeError, match="part_size is 5, was 4"):
        begun(tmp_path, size=5)
    assert begun(tmp_path, size=None)[1].part_size == 4
    with pytest.raises(ResumeError, match="Pass --resume"):
        UnfinishedRun(tmp_path).begin({}, 10, None, 1, resume=False)


@pytest.mark.parametrize("what", ["file", "link", "their file in it"])
def test_what_is_in_the_place_of_the_folder_is_refused_and_untouched(tmp_path, what):
    run, theirs = UnfinishedRun(tmp_path / "out"), tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "notes.txt").write_text("mine")
    run.output.mkdir()
    if what == "file":
        run.folder.write_text("mine")
    elif what == "link":
        run.folder.symlink_to(theirs)
    else:
        theirs.rename(run.folder)
    with pytest.raises(ResumeError, match="'notes.txt': move them away" if what == "their file in it" else "move it away"):
        run.begin({}, 10, 4, 1, resume=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.read_text() == "mine"]
    assert not list(tmp_path.rglob("run.json"))
    (tmp_path / "out.txt").write_text("mine")
    for enter in (UnfinishedRun(tmp_path / "out.txt").held, lambda: begun(tmp_path / "out.txt")):
        with pytest.raises(FileExistsError, match="is not a folder; pass another --output"):
            enter()
    with UnfinishedRun(tmp_path / "new").held():
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()


def test_a_run_that_ends_takes_its_files_along_and_no_others(tmp_path):
    run, plan = begun(tmp_path)
    assert begun(tmp_path)[0].remove_if_empty() is True
    assert not run.folder.exists()
    run, plan = begun(tmp_path)
    run.write(0, table(*plan.rows(0)))
    assert (run.remove_if_empty(), run.remove_if_unscored(), run.done) == (False, False, 1)
    with run.publish() as stage:
        (stage / "scores.txt").write_text("1")
        assert not (tmp_path / "scores.txt").exists()
    assert (tmp_path / "scores.txt").read_text() == "1"
    assert not stage.exists()
    (run.folder / "notes.txt").write_text("mine")
    run.remove()
    assert [path.name for path in run.folder.iterdir()] == ["notes.txt"]


def test_a_run_that_could_not_be_begun_leaves_no_folder_and_says_why(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("attacker_metrics.jobs.parts.write_whole", full)
    with pytest.raises(OSError, match="no space left"):
        begun(tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_a_stage_with_parts_keeps_a_run_without_any_until_it_is_unscored(tmp_path):
    run, plan = begun(tmp_path)
    stage, _ = begun(run.folder / "fit")
    stage.write(0, table(*plan.rows(0)))
    assert (run.done, run.stored, run.remove_if_empty()) == (0, 1, False)
    assert UnfinishedRun(tmp_path).remove_if_unscored() is False  # another process's
    assert run.remove_if_unscored() is True
    assert not run.folder.exists()


def test_a_process_that_joins_writes_parts_of_the_same_run(tmp_path):
    other = UnfinishedRun(tmp_path)
    with pytest.raises(FileNotFoundError, match="must be on storage that all share"):
        other.join()
    _, plan = begun(tmp_path)
    other.join()
    other.write(1, table(*plan.rows(1)))
    assert other.joined
    assert begun(tmp_path)[1].remaining == [0, 2]


def write_for_ever(output):
    run = UnfinishedRun(output)
    run.begin({}, 10**6, 1, 1, resume=True)
    part = 0
    while True:
        run.write(part, pa.table({"values": np.zeros(100_000)}))
        part += 1


def test_kill_9_in_the_middle_of_writing_leaves_no_damaged_part(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=write_for_ever, args=(tmp_path,))
    process.start()
    run = UnfinishedRun(tmp_path)
    while run.done < 3:
        time.sleep(0.01)
        assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = run.done
    plan = run.begin({}, 10**6, 1, 1, resume=True)
    assert len(plan.remaining) == 10**6 - done
    assert sorted(path.name for path in run.folder.iterdir() if not path.name.startswith("part-")) == ["run.json"]
    assert not list(run.folder.glob("*.tmp"))
    assert json.loads((run.folder / "run.json").read_text())["part_size"] == 1


def test_scores_of_parts_are_put_side_by_side(tmp_path):
    generator, run = np.random.default_rng(0), UnfinishedRun(tmp_path)
    plan, values, parts = run.begin({}, 10, 4, 1, resume=False), generator.random((10, 2), np.float32), []
    for part in plan.remaining:
        start, stop = plan.rows(part)
        scores = PartScores.empty(start, stop - start, 2)
        scores.values[:] = values[start:stop]
        parts.append(scores)
    parts[1].failures[2] = "broken"
    parts[2].finite[0] = False
    parts[0].collapsed[3] = [True, False]
    for part, scores in enumerate(parts):
        run.write(part, scores.beside(pa.table({"id": [f"p{i}" for i in range(*plan.rows(part))]})))
    scores = RunScores.of_tables(run.tables(plan), ["a", "b"], 10)
    np.testing.assert_array_equal(np.stack([scores.columns["a"], scores.columns["b"]], axis=1), values)
    assert scores.failures == {6: "broken"}
    assert np.flatnonzero(~scores.scored).tolist() == [6, 8]
    assert np.flatnonzero(scores.collapsed["a"]).tolist() == [3]
    assert not scores.collapsed["b"].any()
    assert [scores.id(i) for i in (0, 9)] == ["p0", "p9"]


class Source:
    groups = None
    unmatched = ()

    def __init__(self):
        self.asked, self.threads = 0, set()

    def load(self, index, row):
        self.asked += 1
        self.threads.add(threading.get_ident())
        time.sleep(0.002 * (index % 3))
        if index == 5:
            raise RuntimeError("cannot")
        return LoadedPair(index, torch.zeros(3, 2, 2), torch.zeros(3, 2, 2), noisy_eight_bit=row["row"] % 2 == 0)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_pairs_come_in_order_and_only_so_many_ahead(workers):
    source, taken = Source(), 0

    def parts():
        nonlocal taken
        for number in range(10):
            taken += 1
            yield PartRows(number, 7 * number, table(7 * number, 7 * number + 7))

    for position, (part, pair) in enumerate(load_ahead(source, parts(), workers=workers, ahead=5)):
        assert pair.index == position
        assert part.number == position // 7
        assert isinstance(pair, FailedPair) == (position == 5)
        assert source.asked <= position + 1 + (5 if workers else 0) + 1
        assert taken <= (position + 7) // 7 + 1
        if isinstance(pair, LoadedPair):
            assert pair.noisy_eight_bit == (position % 2 == 0)
    assert position == 69
    assert len(source.threads) <= max(1, workers)
    assert (threading.get_ident() in source.threads) == (workers == 0)


def test_loading_and_computing_get_no_more_cores_than_there_are(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for cores in (1, 2, 3, 4, 8, 64, 256):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: range(cores), raising=False)
        for processes in (1, 2, 4, 64):
            threads, workers = share_cores(processes, on_cpu=True)
            mine = max(1, cores // processes)
            assert threads >= 1
            assert workers >= 1
            assert threads + workers <= mine + (mine < 4)
            assert share_cores(processes, on_cpu=False)[1] <= 8


def test_loading_threads_leave_the_computation_its_threads():
    code = (
        "import torch; torch.set_num_threads(3)\n"
        "from attacker_metrics.pairs.loading import load_ahead, PartRows\n"
        "import pyarrow as pa\n"
        "class Source:\n"
        "    def load(self, index, row): return torch.get_num_threads()\n"
        "part = PartRows(0, 0, pa.table({'row': range(9)}))\n"
        "print([n for _, n in load_ahead(Source(), [part], workers=2, ahead=3)], torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == f"{[1] * 9} 3"


@pytest.mark.parametrize(
    ("total", "processes", "size"), [(1, 1, 1), (6, 1, 6), (100, 4, 16), (10**6, 8, 256), (1000, 2, 63)]
)
def test_default_part_size(total, processes, size):
    assert default_part_size(total, processes, 16) == size


def test_one_process_agrees_with_itself():
    processes = Processes()
    assert (processes.rank, processes.count, processes.is_first) == (0, 1, True)
    assert [processes.take("parts") for _ in range(3)] == [0, 1, 2]
    assert processes.add("done", 5) == 5
    assert processes.add("done", 2) == 7
    assert processes.tell("plan", {"total": 3}) == {"total": 3}
    assert processes.gather("seconds", 1.5) == [1.5]
    assert processes.agree("fine", lambda: 7, ValueError) == 7
    with pytest.raises(AgreedError, match="wrong"):
        processes.agree("bad", lambda: int("wrong"), ValueError)
    with pytest.raises(ZeroDivisionError):
        processes.agree("worse", lambda: 1 // 0, ValueError)
    processes.leave()


def test_many_processes_ask_for_as_many_words_as_there_are_processes(monkeypatch):
    """Were each to read what all have said, the requests to the one store would grow with the square."""
    store, asked = _OwnStore(), 0
    count = 30

    class Counted:
        def __getattr__(self, name):
            nonlocal asked
            asked += name == "get"
            return getattr(store, name)

    monkeypatch.setattr(Processes, "_joined", lambda _self: Counted())
    monkeypatch.setenv("WORLD_SIZE", str(count))

    def run(rank):
        return members[rank].agree("prepare", lambda: int("wrong") if rank == 7 else rank, ValueError)

    members = []
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        members.append(Processes())
    with ThreadPoolExecutor(count) as pool:
        told = {str(job.exception()) for job in [pool.submit(run, rank) for rank in range(count)]}
    assert len(told) == 1
    assert told.pop().startswith("process 7: invalid literal")
    assert asked < 3 * count


def put(table: pa.Table, **columns: pa.Array) -> pa.Table:
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


NOTES = PartScores.empty(0, 0, 2).beside(pa.table({})).schema.field("_notes").type


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (lambda part: part.drop_columns(["_finite"]), "_finite is missing"),
        (lambda part: put(part, _scores=pa.array([["1", "2"]] * 4)), "_scores is missing or of another kind"),
        (lambda part: put(part, id=pa.array([1, 2, 3, 4])), "id is missing or of another kind"),
        (lambda part: put(part, id=pa.array(["a", None, "b", "c"])), "id has gaps"),
        (lambda part: put(part, _8bit=pa.array([None] * 4, pa.bool_())), "_8bit has gaps"),
        (lambda part: put(part, _notes=pa.array([[{"kind": None, "message": "a"}]] * 4, NOTES)), "_notes has gaps"),
        (lambda part: part.append_column("_finite", part["_finite"]), "_finite is missing"),
        (lambda part: part.append_column("more", part["id"]), "two parts have other columns"),
        (lambda part: pa.concat_tables([part, part]), "more pairs than in the run"),
        (lambda part: part.slice(1), "there are 7 pairs of 8"),
        (lambda _: b"no table", r"holds no scores \((?!None).+\); delete it"),
        (
            lambda part: put(part, id=pa.StringArray.from_buffers(4, *pa.array([b"\xff"] * 4).buffers()[1:])),
            "holds no scores",
        ),
    ],
)
def test_a_part_of_a_stranger_with_a_right_digest_is_refused_in_words(tmp_path, forge, told):
    """Whoever can write a part can give it a right digest: that tells mix-ups."""
    run, plan = begun(tmp_path, total=8)
    parts = [
        PartScores.empty(4 * part, 4, 2).beside(pa.table({"id": [f"p{4 * part + i}" for i in range(4)]})) for part in (0, 1)
    ]
    run.write(0, parts[0])
    forged = forge(parts[1])
    if isinstance(forged, bytes):
        (run.folder / f"part-000000001-{run._digest(forged)}.arrow").write_bytes(forged)
    else:
        run.write(1, forged)
    with pytest.raises(ResumeError, match=told):
        RunScores.of_tables(run.tables(plan), ["a", "b"], 8)


@pytest.mark.parametrize("size", [0, -1, True, 1.0, "1", None])
def test_a_record_whose_parts_hold_no_whole_number_of_pairs_is_refused_in_words(tmp_path, size):
    run = UnfinishedRun(tmp_path)
    run.begin({}, 2, 1, 1, resume=False)
    path = run.folder / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "part_size": 1}))
    assert UnfinishedRun(tmp_path).begin({}, 2, None, 1, resume=True).parts == 2
    path.write_text(json.dumps({**record, "part_size": size}))
    with pytest.raises(ResumeError, match="is damaged or not this program's"):
        UnfinishedRun(tmp_path).begin({}, 2, None, 1, resume=True)
