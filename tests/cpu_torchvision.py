"""A pytest plug-in: lets a torchvision that was built for CUDA be imported by a CPU build of torch.

Package registries hold one build of torchvision per version. Next to a CPU build of torch its compiled operators do not
load, and the import stops at the first one that is missing, although networks such as ResNet need none. Declaring the two
that are missed (they stay unusable) is enough. ``pytest -p cpu_torchvision`` loads this before torchmetrics looks.
"""

import contextlib

import torch

_library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    with contextlib.suppress(RuntimeError):  # declared already: the operators did load
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
