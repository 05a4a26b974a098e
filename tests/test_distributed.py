"""Real processes: uneven shares, an empty rank, the numbers of one process."""

import os
import subprocess
import sys
from pathlib import Path

import distributed_script
import pytest
import torch

SCRIPT = Path(distributed_script.__file__)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    path = tmp_path_factory.mktemp("ranks") / "values.pt"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(SCRIPT), str(path)], check=True, timeout=240, capture_output=True, env=environment)
    return torch.load(path, weights_only=True)


def test_every_rank_returns_the_numbers_of_one_process(outcome):
    alone = distributed_script.metrics()
    for rank in distributed_script.SHARES:
        for noisy, clean in distributed_script.batches(rank):
            for metric in alone.values():
                metric.update(noisy, clean)
    wanted = {name: metric.compute() for name, metric in alone.items()}
    assert len(outcome["values"]) == 3
    for values in outcome["values"]:
        assert list(values["collection"]) == list(wanted["collection"])
        for name in wanted["collection"]:
            torch.testing.assert_close(values["collection"][name], wanted["collection"][name], rtol=0, atol=1e-7)
        for name in ("ms_ssim", "pearson"):
            torch.testing.assert_close(values[name], wanted[name], rtol=0, atol=1e-7)


def test_a_rank_keeps_its_own_counts_after_compute(outcome):
    assert outcome["local"] == [(4, 0), (0, 0), (1, 1)]
