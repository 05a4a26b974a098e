"""Run under torchrun by three processes: the scripts of all tests of such processes, in one job.

Each has a group of the first two or of all three, and a folder for what it saw.
"""

import importlib
import os
import sys
from pathlib import Path

import distributed_script
import torch.distributed as dist
from process_group import join, leave

FSDP = "loss_distributed_script"
SCRIPTS = {
    "identity_script": 2,
    "learned_script": 2,
    "assessment_script": 2,
    "semsim_script": 3,
    "semsim_training_script": 2,
    "engines_script": 2,
    FSDP: 2,
}
"""Name -> how many processes."""


def main(folder):
    for name in ("distributed_script", *SCRIPTS):
        (folder / name).mkdir(exist_ok=True)
    distributed_script.main(folder / "distributed_script")
    for name, processes in SCRIPTS.items():
        if int(os.environ["RANK"]) >= processes:
            continue
        try:
            script = importlib.import_module(name)
        except ImportError:  # of an extra, or of an older torch's FSDP: its tests skip
            continue
        join(name, processes)
        script.main(folder / name)
        if name == FSDP:  # torch keeps its group in caches; the threads of this could abort the process while Python ends
            dist.destroy_process_group()
            os._exit(0)
        leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
