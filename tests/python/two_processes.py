"""What the processes of test_distributed.py do: `torchrun two_processes.py FOLDER`.

Each trains every learner on a few digits and leaves FOLDER/rank<k>.json with a digest of every net it ended with and
the first draw of its rounding stream.
"""

import hashlib
import json
import sys
from pathlib import Path

import quintil
import torch
from quintil.continual import find_learner, learner_names, preset, run
from quintil.continual.distributed import launched_group, rank
from quintil.continual.learner import Learner


def configurations(folder: str) -> list:
    """Every learner in float32, with few batches, and some with integers.

    Without LUCIR's margin ranking, which is a mean over some samples of a share instead of all.
    """
    base = preset("digits").replace(
        epochs=2, milestones=(), seeds=(3,), fc_hid_dim=24, finetune_epochs=1, bic_epochs=5, limit_batches=4,
        results_dir=folder, exp_name="runs", split_ratio=0.2, mr_loss=False,
    )  # fmt: skip
    configs = []
    for name in learner_names():
        tasks = {"init_cls": 10, "increment": 0} if find_learner(name).single_task else {"init_cls": 4, "increment": 3}
        configs.append(base.replace(method=name, **tasks))
    scheme = quintil.HDQT(tile_size=8)
    return configs + [c.replace(scheme=scheme) for c in configs if c.method in ("finetune", "icarl", "bic", "der")]


def main(folder: str) -> None:
    digests, draws = {}, []
    end_task, start_epoch = Learner.end_task, quintil.continual.streams.Streams.start_epoch

    def note_net(self: Learner) -> None:
        end_task(self)
        state = self.net.state_dict()
        values = b"".join(state[name].contiguous().numpy().tobytes() for name in sorted(state))
        digests.setdefault(f"{self.name} {self.config.scheme is not None}", []).append(
            hashlib.sha256(values).hexdigest()
        )

    def note_draw(self: object, task: int, epoch: int) -> None:
        start_epoch(self, task, epoch)
        state = torch.get_rng_state()
        draws.append(int(torch.randint(0, 2**62, ())))
        torch.set_rng_state(state)

    Learner.end_task, quintil.continual.streams.Streams.start_epoch = note_net, note_draw
    with launched_group():
        for config in configurations(folder):
            run(config)
        Path(folder, f"rank{rank()}.json").write_text(json.dumps({"digests": digests, "draws": draws}))


if __name__ == "__main__":
    main(sys.argv[1])
