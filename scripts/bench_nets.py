"""Training steps for the benchmarks: which nets on which batches, and in which arithmetic.

A step is zero_grad, forward, loss, backward and SGD with momentum. Nets take cross-entropy; a single layer takes the
mean square error, and its input a gradient, so that it computes all three products. Weights are drawn from one seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import quintil
import torch
import torch.nn.functional as F
from bench_common import Call
from quintil.experiments.simulation import simulate_
from quintil.models import FCNet, IncrementalNet, resnet20, resnet32
from torch import Tensor, nn

OURS = "hdqt"
# name -> what it is; the first is the one that the others are compared with
ARITHMETICS = {
    OURS: "quintil.HDQT(): 4-bit operands, 8-bit accumulators; convolution nets after quintil.nn.fuse_",
    "layers": "quintil.HDQT() with layers one by one",
    "paper": "quintil.HDQT.paper()",
    "best": "quintil.HDQT.best(), fused as HDQT()",
    "float32": "float32 (images in channels_last)",
    "bfloat16": "bfloat16 autocast (images in channels_last)",
    "compile": "float32 by torch.compile (images in channels_last)",
    "simulation": "HDQT simulated op by op in eager PyTorch (tests/python/simulation.py)",
}


@dataclass(frozen=True)
class Workload:
    """A net on batches of one shape. classes: None for a single layer with its own loss.

    repeats: timed steps; simulated: those of the simulation. limits: arithmetic -> largest ratio of times that is fine.
    """

    what: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int | None
    repeats: int = 15
    simulated: int = 2
    limits: dict[str, float] = field(default_factory=dict)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to the input or its 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18(classes: int) -> nn.Module:
    """ResNet-18 as published for ImageNet: 7x7 stem of stride 2, max-pool, four stages of 64 to 512 channels."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    stages = []
    for inputs, outputs, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        stages += [ResidualBlock(inputs, outputs, stride), ResidualBlock(outputs, outputs, 1)]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def with_head(backbone: nn.Module, classes: int) -> nn.Module:
    net = IncrementalNet(backbone)
    net.grow(classes)
    return net


def layer(b: int, k: int, n: int, **options: object) -> Workload:
    return Workload(f"Linear, batch {b}, {k} → {n}", lambda: nn.Linear(k, n), (b, k), None, **options)


def mlp(features: int, classes: int, batch: int = 128, **options: object) -> Workload:
    what = f"MLP {features}-{features}-{features}-{classes}, batch {batch}"
    return Workload(what, lambda: with_head(FCNet(features), classes), (batch, features), classes, **options)


def cifar_resnet(depth: int, batch: int, size: int = 32, **options: object) -> Workload:
    make = {20: resnet20, 32: resnet32}[depth]
    what = f"ResNet-{depth} on {size}×{size}, batch {batch}"
    return Workload(what, lambda: with_head(make(), 100), (batch, 3, size, size), 100, **options)


# The limits catch a step that became slow; they are no goals.
WORKLOADS = {
    "linear_128x256x256": layer(128, 256, 256, repeats=100, simulated=10),
    "linear_256x512x512": layer(256, 512, 512, repeats=50, simulated=5, limits={"float32": 1.2, "simulation": 0.2}),
    "linear_1024": layer(1024, 1024, 1024, simulated=3, limits={"float32": 0.8, "simulation": 0.2}),
    "mlp_405": mlp(405, 19, repeats=100, simulated=10, limits={"float32": 1.5}),
    "mlp_561": mlp(561, 12, repeats=50, simulated=10),
    "resnet20_b32": cifar_resnet(20, 32),
    "resnet20_b128": cifar_resnet(20, 128),
    "resnet32_b32": cifar_resnet(32, 32),
    "resnet32_b128": cifar_resnet(32, 128, limits={"float32": 2.5, "simulation": 0.15}),
    "resnet18_64_b32": Workload("ResNet-18 on 64×64, batch 32", lambda: resnet18(200), (32, 3, 64, 64), 200),
}


def prepared(workload: Workload, arithmetic: str) -> tuple[nn.Module, Tensor]:
    """The net in its arithmetic and a batch, both laid out as that arithmetic likes them."""
    torch.manual_seed(0)
    model, x = workload.build(), torch.randn(workload.shape)
    if x.dim() == 4 and arithmetic != "simulation":
        model, x = (t.to(memory_format=torch.channels_last) for t in (model, x))
    if arithmetic == "simulation":
        simulate_(model, quintil.HDQT())
    elif arithmetic in (OURS, "layers", "paper", "best"):
        schemes = {"paper": quintil.HDQT.paper(), "best": quintil.HDQT.best()}
        quintil.quantize_(model, schemes.get(arithmetic, quintil.HDQT()))
        if arithmetic in (OURS, "best") and x.dim() == 4:
            quintil.nn.fuse_(model)
    elif arithmetic == "compile":
        torch.compiler.reset()
        model = torch.compile(model)
    return model, x


def training_step(workload: Workload, arithmetic: str) -> Call:
    """One whole step on a fixed batch."""
    model, x = prepared(workload, arithmetic)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)
    if workload.classes is None:
        x.requires_grad_()
        target, loss = torch.randn(x.size(0), model.out_features), F.mse_loss
    else:
        target, loss = torch.arange(x.size(0)) % workload.classes, F.cross_entropy
    cast = arithmetic == "bfloat16"

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        x.grad = None
        with torch.autocast("cpu", torch.bfloat16) if cast else contextlib.nullcontext():
            value = loss(model(x), target)
        value.backward()
        optimizer.step()

    return step
