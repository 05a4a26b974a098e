"""``evaluate`` under real torchrun jobs: the numbers of one process, crashes, signals, and what they leave behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rich", reason="needs the cli extra")
import pyarrow.parquet as pq

from attacker_metrics.evaluation import cli
from attacker_metrics.evaluation.parts import FOLDER

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
        *(*FAST, "--batch-size", "8", "--part-size", "64", *options),
    ]


def evaluate(*arguments, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments, **settings), capture_output=True, text=True, env=ENVIRONMENT, timeout=240)


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


def test_two_processes_share_the_pairs_and_give_the_outputs_of_one(manifest, alone, tmp_path):
    done = evaluate(manifest, tmp_path / "out", "--fail-above", "pearson=0.01", "--gallery", "1", processes=2)
    assert_same(tmp_path / "out", alone)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "scores.parquet", "summary.json"]
    assert "data:image/png;base64," in (tmp_path / "out" / "report.html").read_text()
    speed = summary_of(tmp_path / "out")["throughput"]
    assert sum(speed["pairs_of_process"]) == speed["pairs"] == PAIRS
    assert len(speed["pairs_of_process"]) == 2
    assert done.stdout.count("How much each attacker still reads") == 1
    assert done.stderr.count("limit exceeded: pearson mean") == 1
    assert done.stderr.count(f"(exitcode: {cli.GATE_EXCEEDED})") == 1  # torchrun names the first process that ended
    assert "SIGTERM" not in done.stderr.split("Root Cause")[1]
    assert done.returncode == 1


def test_more_processes_than_parts_leave_some_without_work(tmp_path):
    manifest = write_pairs(tmp_path / "pairs", 70, different=3)
    done = evaluate(manifest, tmp_path / "out", processes=3)
    assert done.returncode == 0, done.stderr
    speed = summary_of(tmp_path / "out")["throughput"]
    assert len(speed["pairs_of_process"]) == 3
    assert 0 in speed["pairs_of_process"]
    assert sum(speed["pairs_of_process"]) == 70


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
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"evaluate" in Path(f"/proc/{child}/cmdline").read_bytes()]


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes of a job in /proc")


@linux
def test_a_killed_process_ends_the_job_and_resume_evaluates_the_rest_only(manifest, alone, tmp_path, capsys):
    output = tmp_path / "out"
    job = start_and_wait_for_parts(3, output, manifest, output, processes=2)
    os.kill(workers_of(job)[1], signal.SIGKILL)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "exitcode  : -9" in errors
    kept = stored(output)
    assert 3 <= kept < 16
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

    assert cli.main([*again, "--resume"]) == cli.SOME_FAILED
    assert_same(output, alone)
    assert not (output / FOLDER).exists()
    speed = summary_of(output)["throughput"]
    assert speed["pairs_resumed"] + speed["pairs"] == PAIRS
    assert (kept - 2) * 64 - 24 <= speed["pairs_resumed"] <= (kept - 2) * 64  # the last part holds 40 pairs


@linux
def test_an_elastic_restart_continues_and_a_finished_run_is_not_repeated(manifest, alone, tmp_path):
    output = tmp_path / "out"
    job = start_and_wait_for_parts(3, output, manifest, output, processes=2, launcher=("--max-restarts", "2"))
    before = set((output / FOLDER).glob("part-*.arrow"))
    os.kill(workers_of(job)[0], signal.SIGKILL)
    shown, errors = job.communicate(timeout=240)
    assert_same(output, alone)
    speed = summary_of(output)["throughput"]
    assert speed["pairs_resumed"] >= 64 * (len(before) - 1) + 40
    assert shown.count("How much each attacker still reads") == 1
    # Some pairs fail, which is exit status 1, which torchrun takes for a crash: the last start finds nothing to do.
    assert job.returncode == 1
    assert errors.count("failed: pair 1: ") <= 1


@linux
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, cli.TERMINATED), (signal.SIGINT, cli.INTERRUPTED)])
def test_a_signal_leaves_a_state_to_resume_and_says_so(manifest, alone, tmp_path, number, status):
    output = tmp_path / "out"
    job = start_and_wait_for_parts(2, output, manifest, output)
    job.send_signal(number)
    shown, errors = job.communicate(timeout=60)
    assert job.returncode == status
    assert shown == ""
    assert f"{stored(output)} finished parts are kept" in errors
    assert "--resume continues" in errors
    assert "Traceback" not in errors
    if number == signal.SIGTERM:
        assert cli.main([*command(manifest, output)[3:], "--resume"]) == cli.SOME_FAILED
        assert_same(output, alone)


@linux
def test_a_signal_to_torchrun_reaches_every_process(manifest, tmp_path):
    output = tmp_path / "out"
    job = start_and_wait_for_parts(2, output, manifest, output, processes=2)
    workers = workers_of(job)
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate(timeout=60)
    assert job.returncode != 0
    assert errors.count("--resume continues") == 1
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_mistakes_are_told_once_and_end_every_process(manifest, tmp_path):
    twice = tmp_path / "twice.csv"
    twice.write_text("id,clean,noisy\na,1,2\nb,1,2\na,1,2\n")
    done = evaluate(twice, tmp_path / "out", processes=2)
    assert done.stderr.count("attacker-metrics: ") == 1
    assert "ids must be unique, but 'a' in rows 1 and 3" in done.stderr
    assert f"(exitcode: {cli.BAD_USAGE})" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def two_hosts():
    """Two network namespaces, joined by a cable, that can reach nothing else: names and addresses."""
    names = [f"attacker-metrics-{os.getpid()}-{side}" for side in "ab"]
    addresses = ["10.213.7.1", "10.213.7.2"]
    cables = [f"am{os.getpid()}{side}"[:15] for side in "ab"]
    steps = [["ip", "netns", "add", name] for name in names]
    steps.append(["ip", "link", "add", cables[0], "netns", names[0], "type", "veth", "peer", cables[1], "netns", names[1]])
    for name, address, cable in zip(names, addresses, cables, strict=True):
        steps.append(["ip", "-n", name, "address", "add", f"{address}/24", "dev", cable])
        steps += [["ip", "-n", name, "link", "set", device, "up"] for device in ("lo", cable)]
    try:
        for step in steps:
            try:
                done = subprocess.run(step, capture_output=True, text=True)
            except FileNotFoundError:
                pytest.skip("no ip command to make network namespaces with")
            if done.returncode:
                pytest.skip(f"network namespaces cannot be made here: {done.stderr.strip()}")
        yield list(zip(names, addresses, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@linux
def test_two_hosts_meet_by_c10d_rendezvous_and_share_the_pairs(manifest, alone, tmp_path, two_hosts):
    jobs = []
    for number, (name, address) in enumerate(two_hosts):
        launcher = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{two_hosts[0][1]}:29512")
        launcher += ("--rdzv-conf", f"is_host={1 - number}", "--local-addr", address)  # no name resolves in there
        arguments = command(manifest, tmp_path / "out", processes=1, launcher=launcher)
        arguments.remove("--standalone")
        jobs.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=ENVIRONMENT,
            )
        )
    try:
        outcomes = [job.communicate(timeout=240) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    assert_same(tmp_path / "out", alone)
    assert len(summary_of(tmp_path / "out")["throughput"]["pairs_of_process"]) == 2
    assert sum(shown.count("How much each attacker still reads") for shown, _ in outcomes) == 1
    assert [job.returncode for job in jobs] == [1, 1]  # torchrun's word for the status 1 of both processes
    assert all(f"(exitcode: {cli.SOME_FAILED})" in errors or "exitcode  : 1" in errors for _, errors in outcomes)
