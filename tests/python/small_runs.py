"""Short runs on generated data: every learner, every arithmetic, and their settings."""

from __future__ import annotations

from quintil import HDQT
from quintil.continual import RunConfig

LEARNERS = {
    "finetune": {},
    "finetune, all outputs": {"all_outputs": True},
    "joint": {},
    "offline": {"increment": 0},
    "icarl": {},
    "icarl_bce": {"lr": 1.0},  # the mean over all outputs makes its gradients small
    "replay": {},
    "er": {},
    "lwf": {},
    "lwf_mc": {"lr": 1.0},
    "wa": {},
    "bic": {},
    "bic, compat": {"bic_compat": True},
    "icarl, cosine head": {"head": "cosine", "lr": 0.2},
    "der": {},
    "der, cosine head": {"head": "cosine", "lr": 0.2},
    "memo": {"norm": "batch"},  # four layers: slow without
    "lucir": {},
    "eeil": {"finetune_epochs": 2},
    "gdumb": {"batch_size": 8, "norm": "layer"},  # 60 samples are all it trains on
}
SCHEMES = {"float32": None, "HDQT": HDQT(), "paper": HDQT.paper()}


def config(tmp_path, learner: str = "icarl", scheme: str = "float32", **changes) -> RunConfig:
    base = RunConfig(
        "synthetic",
        learner.split(",")[0],
        increment=5,
        memory_size=60,
        epochs=4,
        lr=0.05,
        batch_size=32,
        fc_hid_dim=48,
        scheme=SCHEMES[scheme],
        threads=1,
        results_dir=str(tmp_path),
    )
    return base.replace(**{**LEARNERS[learner], **changes})
