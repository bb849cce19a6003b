"""MEMO: a shared base and one specialised block per task [CIL 2.8, C12, C11]."""

from __future__ import annotations

import torch

from quintil.models import ExpandableNet, FCNet, IncrementalNet, SharedBaseBackbone

from .config import RunConfig
from .der import DER
from .nets import make_backbone
from .registry import learner


@learner("memo")
class MEMO(DER):
    """DER's loss and alignment where only the last stage of the net exists once per task.

    ResNet: the base is the net up to its second stage, a block the third stage with its pool. FCNet: the base is
    FCNet(in, hid, hid), a block FCNet(hid, hid, hid). The base trains in the first task only, unless `train_base`.
    """

    @property
    def variant(self) -> str:
        base = "trains always" if self.config.train_base else "trains in the first task"
        return f"cross-entropy + auxiliary head, a block per task on a shared base that {base}, weight alignment"

    @classmethod
    def make_net(cls, config: RunConfig, model: str, inputs: int, generator: torch.Generator) -> IncrementalNet:
        if model == "fcnet":
            options = dict(fc_nr_hid=config.fc_nr_hid, norm=config.norm, generator=generator)
            hidden = inputs if config.fc_hid_dim is None else config.fc_hid_dim
            base = FCNet(inputs, hidden, out=hidden, half_dims=config.half_dims, **options)
            block = FCNet(base.out_features, **options)
        elif model == "lstm":
            raise ValueError(
                "memo: expected model to be fcnet, resnet20 or resnet32, got lstm (it has no stages to share)"
            )
        else:
            base, block = make_backbone(config, model, inputs, generator).split()
        backbone = SharedBaseBackbone(base, block, train_base=config.train_base)
        return ExpandableNet(backbone, bias=config.bias, cosine=config.head == "cosine")
