"""Networks used by the runs: ResNets, MobileNetV2, the MLP of the sensor tables, small nets, and nets that grow."""

from .expandable import ExpandableBackbone, ExpandableNet, SharedBaseBackbone
from .incremental import CosineHead, IncrementalNet
from .mlp import FCNet
from .mobilenet import MobileNetV2, mobilenet_v2
from .preact import PreActResNet, preact_resnet18, preact_resnet20, preact_resnet50
from .recurrent import WindowLSTM
from .resnet import CifarResNet, resnet20, resnet32
from .small import CnnLstm, lenet5, vgg_like

__all__ = [
    "CifarResNet",
    "CnnLstm",
    "CosineHead",
    "ExpandableBackbone",
    "ExpandableNet",
    "FCNet",
    "IncrementalNet",
    "SharedBaseBackbone",
    "MobileNetV2",
    "PreActResNet",
    "WindowLSTM",
    "lenet5",
    "mobilenet_v2",
    "preact_resnet18",
    "preact_resnet20",
    "preact_resnet50",
    "resnet20",
    "resnet32",
    "vgg_like",
]
