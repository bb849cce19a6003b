"""Networks used by the runs: CIFAR ResNets, the MLP of the sensor tables, and nets whose classifier grows."""

from .incremental import CosineHead, IncrementalNet
from .mlp import FCNet
from .resnet import CifarResNet, resnet20, resnet32

__all__ = [
    "CifarResNet",
    "CosineHead",
    "FCNet",
    "IncrementalNet",
    "resnet20",
    "resnet32",
]
