"""``evaluate`` under real torchrun jobs: the numbers of one process, crashes, signals, and what they leave behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rich", reason="needs the cli extra")
import pyarrow.parquet as pq
from two_hosts import two_hosts

from attacker_metrics.commands import cli
from attacker_metrics.jobs.parts import FOLDER

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")

FAST = ("--betas", "1", "--gamma", "2")
PAIRS = 1000
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ATTACKER_METRICS_BACKEND": "torch"}


def write_pairs(folder: Path, count: int, different: int = 12) -> Path:
    """A manifest of ``count`` pairs that name ``different`` pairs of files, one of them unreadable and one not finite."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(different):
        generator = np.random.default_rng(index)
        clean = generator.random((3, 16, 16 + 2 * (index % 2)), np.float32)
        noisy = 0.6 * clean + 0.4 * generator.random(clean.shape, np.float32)
        if index == 3:
            noisy[0, 0, 0] = np.nan
        np.save(folder / f"clean{index}.npy", clean)
        np.save(folder / f"noisy{index}.npy", noisy)
    (folder / "noisy5.npy").write_bytes(b"broken")
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "clean", "noisy", "group"])
        for row in range(count):
            index = images_of(row) % different
            writer.writerow([f"pair {row}", f"clean{index}.npy", f"noisy{index}.npy", f"{row % 7:03}"])
    return path


def images_of(row: int) -> int:
    """Which of the twelve different pairs of files a row names."""
    return row * row // 7 % 12


def command(manifest: Path, output: Path, *options: str, processes: int | None = None, launcher: tuple[str, ...] = ()):
    launch = [sys.executable, "-m"]
    if processes is not None:
        launch += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *launcher, "-m"]
    return [
        *(*launch, "attacker_metrics", "evaluate", "--manifest", str(manifest), "--output", str(output)),
        *(*FAST, "--batch-size", "16", "--part-size", "64", *options),
    ]


def summary_of(output: Path) -> dict:
    return json.loads((output / "summary.json").read_text())


def scores_of(output: Path) -> dict:
    return pq.read_table(output / "scores.parquet").to_pydict()


def assert_same(output: Path, wanted: Path) -> None:
    """The same rows in the same order, counts equal, numbers within 1e-6."""
    theirs, ours = scores_of(wanted), scores_of(output)
    assert list(ours) == list(theirs)
    for name, values in theirs.items():
        if name in ("id", "group"):
            assert ours[name] == values
        else:
            np.testing.assert_allclose(np.array(ours[name], float), np.array(values, float), rtol=0, atol=1e-6)
    then, now = summary_of(wanted), summary_of(output)
    for name in ("pairs", "evaluated", "skipped", "failed", "collapsed", "skipped_pairs", "failed_pairs", "strongest"):
        assert now[name] == then[name]
    for name, statistics in then["components"].items():
        for statistic, value in statistics.items():
            assert now["components"][name][statistic] == pytest.approx(value, abs=1e-6)


@pytest.fixture(scope="module", autouse=True)
def _torch_engine():
    """Which of two pictures that are alike comes first shall not hang on the last bit of a batch's kernel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTACKER_METRICS_BACKEND", "torch")
        yield


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), PAIRS)


@pytest.fixture(scope="module")
def alone(manifest):
    """The outputs of one process, not interrupted."""
    output = manifest.parent / "alone"
    assert cli.main(command(manifest, output)[3:]) == cli.SOME_FAILED
    return output


def test_the_first_row_is_evaluated_with_the_group_as_text(alone):
    summary, scores = summary_of(alone), scores_of(alone)
    assert summary["pairs"] == PAIRS
    assert scores["id"] == [f"pair {row}" for row in range(PAIRS)]
    assert scores["group"] == [f"{row % 7:03}" for row in range(PAIRS)]
    unscored = {row for row in range(PAIRS) if images_of(row) in (3, 5)}
    assert {row for row in range(PAIRS) if scores["ms_ssim"][row] is None} == unscored
    assert summary["skipped"] + summary["failed"] == len(unscored)
    assert len(summary["skipped_pairs"]) == sum(images_of(row) == 3 for row in range(PAIRS))


@pytest.fixture(scope="module")
def shared(manifest, tmp_path_factory):
    """What two processes left behind and said, after three mistakes; on two hosts where the machine allows it."""
    folder = tmp_path_factory.mktemp("shared")
    twice = folder / "twice.csv"
    twice.write_text("id,clean,noisy\na,1,2\nb,1,2\na,1,2\n")
    asked = command(manifest, folder / "out", "--fail-above", "pearson=0.01", "--gallery", "1")[3:]
    script = [str(Path(__file__).with_name("mistakes_script.py")), str(twice), *asked]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    with two_hosts() as hosts:
        commands = [[*inside, *torchrun, "1", *options, *script] for inside, options in hosts]
        jobs = [
            subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
            for arguments in commands or [[*torchrun, "2", "--standalone", *script]]
        ]
        try:
            told = [job.communicate(timeout=240) for job in jobs]
        finally:
            for job in jobs:
                job.kill()
    return folder / "out", [(job.returncode, *texts) for job, texts in zip(jobs, told, strict=True)]


def test_two_processes_share_the_pairs_and_give_the_outputs_of_one(shared, alone):
    output, jobs = shared
    assert_same(output, alone)
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "scores.parquet", "summary.json"]
    assert "data:image/png;base64," in (output / "report.html").read_text()
    speed = summary_of(output)["throughput"]
    assert sum(speed["pairs_of_process"]) == speed["pairs"] == PAIRS
    assert len(speed["pairs_of_process"]) == 2
    assert sum(shown.count("How much each attacker still reads") for _, shown, _ in jobs) == 1
    assert sum(errors.count("limit exceeded: pearson mean") for _, _, errors in jobs) == 1
    for status, _, errors in jobs:
        assert status == 1  # torchrun's word for any status that is not 0
        assert errors.count(f"(exitcode: {cli.GATE_EXCEEDED})") == 1  # it names the first process that ended
        assert "SIGTERM" not in errors.split("Root Cause")[1]


def test_two_hosts_meet_by_c10d_rendezvous(shared):
    _, jobs = shared
    if len(jobs) == 1:
        pytest.skip("this machine allows no network namespaces: two processes ran on one host")
    assert [status for status, _, _ in jobs] == [1, 1]
    assert [errors.count(f"(exitcode: {cli.GATE_EXCEEDED})") for _, _, errors in jobs] == [1, 1]


def test_mistakes_are_told_once_and_end_every_process(shared):
    said = "".join(errors for _, _, errors in shared[1])
    assert said.count("'x' is not a whole number of at least 1") == 1
    assert said.count("attacker-metrics: process 1: ") == 1
    assert said.count("'0' is not a whole number of at least 1") == 1
    assert said.count("'attacker-metrics evaluate --help' shows what there is") == 2
    assert said.count("ids must be unique, but 'a' in rows 1 and 3") == 1


def start_and_wait_for_parts(parts: int, output: Path, *arguments, **settings) -> subprocess.Popen:
    """Start a job and return when so many parts are stored."""
    process = subprocess.Popen(
        command(*arguments, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while stored(output) < parts:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def stored(output: Path) -> int:
    return len(list((output / FOLDER).glob("part-*.arrow")))


def workers_of(process: subprocess.Popen) -> list[int]:
    children = read_of_process(process.pid, f"task/{process.pid}/children").split()
    return [int(child) for child in children if b"evaluate" in read_of_process(int(child), "cmdline")]


def read_of_process(number: int, name: str) -> bytes:
    """A file about a process; nothing if it has ended, before the file was opened or since."""
    try:
        return Path(f"/proc/{number}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes of a job in /proc")


@contextmanager
def signalled(number: int, parts: int, output: Path):
    """This process gets a signal when so many parts are stored; the test fails if nobody answers it."""

    def send():
        while stored(output) < parts and not ended.wait(0.002):
            pass
        if not ended.is_set():
            os.kill(os.getpid(), number)

    ended, before = threading.Event(), signal.signal(number, signal.default_int_handler)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        signal.signal(number, before)


@contextmanager
def largest_file(size: int):
    """The system refuses to write beyond so many bytes of a file, as it does on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
@linux
def test_what_a_killed_process_leaves_is_resumed_through_further_faults_by_another_number_of_processes(
    manifest, alone, tmp_path, capsys
):
    output = tmp_path / "out"
    job = start_and_wait_for_parts(3, output, manifest, output, processes=2)
    os.kill(workers_of(job)[1], signal.SIGKILL)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "exitcode  : -9" in errors
    kept = stored(output)
    assert 3 <= kept < 14
    assert not (output / "summary.json").exists()

    damaged, lost = sorted((output / FOLDER).glob("part-*.arrow"))[:2]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    lost.unlink()
    (output / FOLDER / "part-000000015-0.arrow.1.tmp").write_bytes(b"half a part")

    again = command(manifest, output)[3:]
    assert cli.main(again) == cli.BAD_USAGE
    assert "Pass --resume to continue it" in capsys.readouterr().err
    assert cli.main([*again, "--resume", "--blur-sigma", "1.5", "--part-size", "32"]) == cli.BAD_USAGE
    message = capsys.readouterr().err
    assert "blur_sigma is 1.5, was 2.0" in message
    assert "part_size is 32, was 64" in message
    assert "gamma" not in message

    with largest_file(2000):
        assert cli.main([*again, "--resume"]) == cli.BAD_USAGE
    message = capsys.readouterr().err
    assert "File too large" in message
    assert f"{kept - 2} finished parts are kept in {output / FOLDER}. The same command with --resume continues." in message
    assert not list((output / FOLDER).glob("*.tmp"))

    with signalled(signal.SIGTERM, 14, output):
        assert cli.main([*again, "--resume"]) == cli.TERMINATED
    shown, message = capsys.readouterr()
    assert shown == ""
    done = stored(output)
    assert 14 <= done < 16
    assert f"interrupted; {done} finished parts are kept" in message

    end = subprocess.run(
        command(manifest, output, "--resume", processes=3), capture_output=True, text=True, env=ENVIRONMENT, timeout=240
    )
    assert f"(exitcode: {cli.SOME_FAILED})" in end.stderr
    assert_same(output, alone)
    assert not (output / FOLDER).exists()
    speed = summary_of(output)["throughput"]
    assert speed["pairs_resumed"] + speed["pairs"] == PAIRS
    assert done * 64 - 24 <= speed["pairs_resumed"] <= done * 64  # the last part holds 40 pairs
    assert len(speed["pairs_of_process"]) == 3
    assert 0 in speed["pairs_of_process"]  # two parts at most were left


@pytest.mark.slow
@linux
def test_an_elastic_restart_continues_and_a_signal_to_torchrun_ends_every_process(manifest, alone, tmp_path):
    output = tmp_path / "out"
    job = start_and_wait_for_parts(3, output, manifest, output, processes=2, launcher=("--max-restarts", "2"))
    os.kill(workers_of(job)[0], signal.SIGKILL)
    deadline, before = time.monotonic() + 200, {}
    while not before or stored(output) <= len(before) or len(workers_of(job)) < 2:
        if not before and len(restarted := workers_of(job)) == 2 and all(map(restarted_once, restarted)):
            before = parts_of(output)
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = workers_of(job)
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate(timeout=60)
    assert job.returncode != 0
    assert errors.count("--resume continues") == 1
    assert "Pass --resume" not in errors
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    after = parts_of(output)
    assert len(before) >= 3
    assert before.items() < after.items()  # the restart went on, and wrote none of them again
    assert cli.main([*command(manifest, output)[3:], "--resume"]) == cli.SOME_FAILED
    assert_same(output, alone)
    assert summary_of(output)["throughput"]["pairs_resumed"] >= 64 * (len(after) - 1) + 40


def restarted_once(worker: int) -> bool:
    return b"TORCHELASTIC_RESTART_COUNT=1\0" in read_of_process(worker, "environ")


def parts_of(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (output / FOLDER).glob("part-*.arrow")}


def test_a_finished_run_is_not_repeated_by_a_restart(manifest, alone, monkeypatch, capsys):
    """Some pairs fail, which is exit status 1, which torchrun takes for a crash: the last start finds nothing to do."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    before = {path: path.stat().st_mtime_ns for path in alone.iterdir()}
    assert cli.main(command(manifest, alone)[3:]) == cli.SOME_FAILED
    assert {path: path.stat().st_mtime_ns for path in alone.iterdir()} == before
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_leaves_a_state_to_resume_and_says_so(manifest, tmp_path, capsys):
    output = tmp_path / "out"
    with signalled(signal.SIGINT, 1, output):
        assert cli.main(command(manifest, output)[3:]) == cli.INTERRUPTED
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert f"interrupted; {stored(output)} finished parts are kept" in errors
    assert "--resume continues" in errors
