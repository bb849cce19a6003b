"""LUCIR: a classifier rebalanced by cosines [CIL 2.9]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quintil.models import IncrementalNet

from .config import RunConfig
from .exemplars import normalise_rows
from .learner import Learner
from .losses import less_forget_loss, margin_ranking_loss
from .nets import make_backbone
from .registry import learner
from .tasks import Task


@learner("lucir")
class LUCIR(Learner):
    """CE over sigma cos(f, w) + less-forget (features keep their direction) + margin ranking (exemplars of old classes
    are told from the new classes they resemble most).

    Features are signed, without their last ReLU. New head rows start at the mean direction of their class; old rows
    never move. lamda (default 5) is multiplied by sqrt(known classes / new classes).
    """

    uses_memory = True

    @property
    def uses_teacher(self) -> bool:
        return self.config.less_forget

    @property
    def variant(self) -> str:
        config = self.config
        named = (("imprinted rows", config.imprint_weights), ("less-forget", config.less_forget))
        parts = [name for name, on in (*named, ("margin ranking", config.mr_loss)) if on]
        return " + ".join(["cross-entropy over cosines", *parts])

    @classmethod
    def make_net(cls, config: RunConfig, model: str, inputs: int, generator: torch.Generator) -> IncrementalNet:
        if config.head == "linear":
            raise ValueError("run: expected head to be cosine for method lucir, got linear")
        return IncrementalNet(
            make_backbone(config, model, inputs, generator, last_relu=False), bias=config.bias, cosine=True
        )

    def begin_task(self, task: Task) -> None:
        super().begin_task(task)
        if self.known == 0:
            return
        if self.config.imprint_weights:
            self.imprint(task)
        self._fix_old_rows()

    @torch.no_grad()
    def imprint(self, task: Task) -> None:
        """Set each new row to the mean direction of its class in the net so far, as long as an old row on average."""
        weight = self.net.head.weight
        length = weight[: self.known].norm(dim=1).mean()
        features = normalise_rows(self.features(task.x))
        sums = torch.zeros(self.seen - self.known, features.size(1), dtype=features.dtype)
        sums.index_add_(0, task.y - self.known, features)
        weight[self.known : self.seen] = length * normalise_rows(sums)

    def teacher_outputs(self, x: Tensor) -> Tensor:
        """Features of the previous net."""
        return self.teacher.features(x)

    def batch_parts(self, x: Tensor, labels: Tensor, teacher: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        config, head = self.config, self.net.head
        features = self.net.features(x)
        cosines = head.cosines(features)
        logits = head.sigma * cosines
        parts = self.loss_parts(logits, labels, teacher)
        if self.known and config.less_forget:
            weight = 5.0 if config.lamda is None else config.lamda
            weight *= math.sqrt(self.known / (self.seen - self.known))
            parts["less_forget"] = weight * less_forget_loss(features, teacher)
        if self.known and config.mr_loss:
            margin = margin_ranking_loss(
                cosines, labels, self.known, margin=config.mr_margin, nearest=config.mr_nearest
            )
            parts["margin"] = config.lw_mr * margin
        return logits, parts

    def epoch_order(self) -> Tensor:
        """With rs_ratio, that share of an epoch is exemplars, drawn with repetition; if they are fewer than that."""
        exemplars, ratio = self._replayed, self.config.rs_ratio
        new = self._labels.numel() - exemplars
        wanted = round(new * ratio / (1.0 - ratio))
        if wanted <= exemplars or exemplars == 0:
            return super().epoch_order()
        generator = self.streams["shuffle"]
        drawn = new + torch.randint(exemplars, (wanted,), generator=generator)
        order = torch.cat([torch.arange(new), drawn])
        return order[torch.randperm(order.numel(), generator=generator)]

    def _fix_old_rows(self) -> None:
        """Put the old rows back after every step: a gradient of zero would not stop momentum and weight decay."""
        weight, known = self.net.head.weight, self.known
        old = weight[:known].detach().clone()

        @torch.no_grad()
        def restore(*_: object) -> None:
            weight[:known] = old

        self.optimizer.register_step_post_hook(restore)
