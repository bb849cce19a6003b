"""Networks used by the runs: CIFAR ResNets, the MLP of the sensor tables, and nets whose classifier or body grows."""

from .expandable import ExpandableBackbone, ExpandableNet, SharedBaseBackbone
from .incremental import CosineHead, IncrementalNet
from .mlp import FCNet
from .resnet import CifarResNet, resnet20, resnet32

__all__ = [
    "CifarResNet",
    "CosineHead",
    "ExpandableBackbone",
    "ExpandableNet",
    "FCNet",
    "IncrementalNet",
    "SharedBaseBackbone",
    "resnet20",
    "resnet32",
]
