"""Networks used by the runs: CIFAR ResNets, the MLP of the sensor tables, and the net whose classifier grows."""

from .incremental import IncrementalNet
from .mlp import FCNet
from .resnet import CifarResNet, resnet20, resnet32

__all__ = ["CifarResNet", "FCNet", "IncrementalNet", "resnet20", "resnet32"]
