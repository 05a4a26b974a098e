"""SemSim: distance of unit embeddings that were trained on which reconstructions people recognise.

:class:`SemSim` and :func:`semsim` need torch only, with an encoder of your own. Checkpoints, the ResNet encoders and
training need the extra ``semsim`` (safetensors, torchvision, Lightning, TensorBoard).
"""

from attacker_metrics.semsim.checkpoint import load_encoder, save_encoder
from attacker_metrics.semsim.encoder import ARCHITECTURES, Encoder, Preprocessing, small_image_resnet
from attacker_metrics.semsim.metric import SemSim, semsim

__all__ = [
    "ARCHITECTURES",
    "Encoder",
    "Preprocessing",
    "SemSim",
    "load_encoder",
    "save_encoder",
    "semsim",
    "small_image_resnet",
]
