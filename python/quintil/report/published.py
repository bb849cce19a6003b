"""Published class-incremental results of HDQT beside which a run of the same protocol may be put [CIL 8.1].

Source: the result lists of the HDQT authors' notebook; linear head (cnn), and nearest mean of exemplars (nme) where
they print it. 5 seeds on CIFAR-100; 20 on the sensor sets (DER and MEMO 5). HDQT means 4-bit operands with 8-bit
accumulators.
"""

from __future__ import annotations

from dataclasses import dataclass

from quintil.metrics import RunResult

ARITHMETICS = {"float32": "published float32", "hdqt": "published HDQT w4a4acc8"}


@dataclass(frozen=True)
class Published:
    """One published row: AIA, last accuracy with its std over seeds, last forgetting_class_best, and the curve."""

    arithmetic: str
    head: str
    average: float
    std: float | None
    forgetting: float | None
    curve: tuple[float, ...]
    seeds: int

    @property
    def label(self) -> str:
        return ARITHMETICS[self.arithmetic]

    @property
    def last(self) -> float:
        return self.curve[-1]


# data set, learner, arithmetic, head, AIA, std of the last accuracy, last forgetting_class_best | accuracy per task
_TABLE = """
cifar100 lwf   float32 cnn  53.73  0.91 39.25 | 79.50 64.01 50.75 40.46 33.92
cifar100 lwf   hdqt    cnn  48.78  1.28 38.00 | 73.61 59.72 45.85 35.42 29.32
cifar100 icarl float32 cnn  60.60  1.21 36.10 | 79.55 70.26 59.21 50.77 43.20
cifar100 icarl float32 nme  65.51     -     - | 79.17 72.00 64.77 58.77 52.84
cifar100 icarl hdqt    cnn  54.01  2.42 36.93 | 72.77 63.32 52.30 44.43 37.25
cifar100 icarl hdqt    nme  59.25     -     - | 72.33 65.86 58.43 52.49 47.15
cifar100 bic   float32 cnn  64.73  3.95 14.53 | 79.72 72.18 64.71 58.48 48.54
cifar100 bic   float32 nme  65.25     -     - | 79.13 71.57 64.31 58.15 53.08
cifar100 bic   hdqt    cnn  58.76  2.64 17.69 | 72.64 65.43 57.93 51.71 46.07
cifar100 bic   hdqt    nme  58.96     -     - | 71.75 65.13 57.99 52.38 47.56
cifar100 der   float32 cnn  70.36  0.88 14.26 | 79.51 74.36 69.88 66.05 62.01
cifar100 der   hdqt    cnn  60.12  0.48 15.88 | 73.96 66.10 58.49 52.80 49.25
cifar100 memo  float32 cnn  66.66  0.82 15.62 | 79.93 71.84 65.41 60.38 55.75
cifar100 memo  hdqt    cnn  52.42  7.31 18.64 | 67.33 56.91 51.12 46.47 40.25
dsads    lwf   float32 cnn  34.30  6.01 35.46 | 99.92 69.67 46.43 30.58 23.23 17.90 16.36 14.05 12.81 12.06
dsads    lwf   hdqt    cnn  35.37  7.68 38.98 | 99.88 68.85 49.39 33.46 25.01 19.71 16.86 15.09 13.14 12.33
dsads    icarl float32 cnn  83.99  4.84 24.91 | 99.92 97.21 92.12 85.56 84.43 80.94 78.57 74.88 73.42 72.83
dsads    icarl float32 nme  87.20     -     - | 99.88 97.62 95.28 89.39 88.36 85.19 82.81 79.69 77.42 76.38
dsads    icarl hdqt    cnn  83.63  4.59 24.75 | 99.88 96.67 92.17 85.42 84.82 79.51 77.49 74.91 72.69 72.74
dsads    icarl hdqt    nme  86.48     -     - | 99.71 96.31 93.99 88.31 87.24 83.85 81.21 79.75 77.24 77.19
dsads    bic   float32 cnn  82.94  6.05 13.54 | 99.88 97.08 92.46 86.84 85.52 80.96 76.32 73.46 69.31 67.55
dsads    bic   float32 nme  83.96     -     - | 99.88 97.42 93.53 86.68 85.63 81.03 78.07 74.42 72.40 70.58
dsads    bic   hdqt    cnn  80.72  5.86 14.40 | 99.88 96.40 90.54 84.64 83.36 78.37 74.69 69.92 65.56 63.79
dsads    bic   hdqt    nme  79.99     -     - | 99.71 93.67 93.61 82.71 81.67 77.17 71.86 66.60 67.57 65.35
dsads    der   float32 cnn  77.08  4.61 27.00 | 99.83 99.67 85.50 82.21 75.83 59.70 60.31 66.37 67.31 74.02
dsads    der   hdqt    cnn  77.45  5.40 32.37 | 99.33 98.75 82.11 77.17 69.50 64.22 70.29 71.27 67.35 74.47
dsads    memo  float32 cnn  61.55  8.46 53.37 | 99.67 94.58 78.78 65.50 57.07 44.47 48.40 43.08 37.81 46.18
dsads    memo  hdqt    cnn  57.89 11.18 66.21 | 99.00 86.50 64.89 66.50 49.33 39.53 45.62 41.17 41.39 44.95
pamap2   lwf   float32 cnn  57.28  8.03 29.75 | 98.51 69.98 54.49 44.35 40.02 36.34
pamap2   lwf   hdqt    cnn  55.22 10.25 32.38 | 98.60 67.17 55.03 41.97 35.70 32.84
pamap2   icarl float32 cnn  87.14  5.50 17.59 | 98.51 94.60 89.63 83.33 79.24 77.52
pamap2   icarl float32 nme  89.23     -     - | 98.61 95.49 91.78 86.32 83.17 80.03
pamap2   icarl hdqt    cnn  87.01  5.02 16.94 | 98.60 94.58 89.07 81.91 80.01 77.87
pamap2   icarl hdqt    nme  88.70     -     - | 98.14 94.67 91.42 85.21 82.82 79.96
pamap2   bic   float32 cnn  87.47  6.10 12.05 | 98.34 94.84 90.28 83.75 80.53 77.04
pamap2   bic   float32 nme  87.55     -     - | 98.56 95.07 90.74 84.01 80.05 76.89
pamap2   bic   hdqt    cnn  85.89  6.66 13.73 | 98.56 93.33 88.69 81.07 78.21 75.46
pamap2   bic   hdqt    nme  85.13     -     - | 97.99 94.21 87.02 79.17 77.52 74.87
pamap2   der   float32 cnn  81.43  6.73 20.36 | 99.02 89.08 81.19 72.30 72.61 74.36
pamap2   der   hdqt    cnn  80.96  6.90 29.34 | 98.91 89.46 80.11 71.58 70.72 74.96
pamap2   memo  float32 cnn  74.81  5.16 36.45 | 99.03 87.98 79.22 64.85 58.91 58.89
pamap2   memo  hdqt    cnn  56.19 12.66 46.61 | 98.36 65.25 67.49 40.15 34.85 31.05
hapt     lwf   float32 cnn  56.31  8.74 36.23 | 97.23 71.45 55.86 44.90 35.65 32.78
hapt     lwf   hdqt    cnn  53.91 10.22 37.49 | 97.01 73.59 53.77 39.35 31.11 28.65
hapt     icarl float32 cnn  89.94  5.12 17.67 | 97.23 96.12 91.38 88.61 83.34 82.98
hapt     icarl float32 nme  91.71     -     - | 97.22 96.37 93.27 90.51 87.12 85.80
hapt     icarl hdqt    cnn  88.94  4.51 17.52 | 97.01 95.81 88.46 87.43 82.34 82.56
hapt     icarl hdqt    nme  90.63     -     - | 96.77 96.15 90.63 89.66 85.59 84.94
hapt     bic   float32 cnn  89.83  4.32 11.57 | 97.13 96.01 91.56 88.61 84.24 81.42
hapt     bic   float32 nme  89.93     -     - | 97.38 96.18 91.84 88.45 84.21 81.54
hapt     bic   hdqt    cnn  87.94  3.93 13.11 | 96.88 95.72 88.53 86.55 81.71 78.26
hapt     bic   hdqt    nme  87.74     -     - | 96.70 95.80 88.28 86.07 81.10 78.49
hapt     der   float32 cnn  89.78  1.63 18.84 | 100.00 99.11 89.83 85.80 77.61 86.31
hapt     der   hdqt    cnn  89.86  2.73 17.23 | 100.00 98.83 88.57 86.83 78.96 85.95
hapt     memo  float32 cnn  80.46  7.05     - | 100.00 96.48 79.13 78.33 58.95 69.90
hapt     memo  hdqt    cnn  65.91 24.41     - | 92.44 87.09 56.23 49.82 51.85 58.01
"""

_SENSOR = dict(
    memory_size=200, memory_policy="total", epochs=100, lr=0.01, milestones=[], batch_size=128, weight_decay=2e-4,
    split="hdqt", network="FCNet", fc_nr_hid=0, half_dims=False, norm="none",
)  # fmt: skip
_COMMON = dict(
    init_epoch=None, init_lr=None, init_milestones=None, init_lr_decay=None, init_weight_decay=None, momentum=0.9,
    limit_batches=0, T=2.0, kd_tau2=False, exemplar_selection="herding",
)  # fmt: skip
# What config.json must say for the protocol to be the published one. `features` is the width of the hidden layers,
# which is that of the input: 405, 243 and 561 columns.
_PROTOCOLS = {
    "cifar100": dict(
        task_sizes=[20] * 5, memory_size=2000, memory_policy="total", epochs=170, lr=0.05, lr_decay=0.1,
        milestones=[60, 100, 140], batch_size=128, weight_decay=2e-4, network="CifarResNet",
    ),
    "dsads": dict(_SENSOR, task_sizes=[2] * 9 + [1], features=405),
    "pamap2": dict(_SENSOR, task_sizes=[2] * 5 + [1], features=243),
    "hapt": dict(_SENSOR, task_sizes=[2] * 5 + [1], features=561),
}  # fmt: skip
_WITHOUT_MEMORY = ("lwf",)
_MEMO_NETWORKS = {"CifarResNet": "ResNetBase + ResNetTop", "FCNet": "FCNet + FCNet"}  # shared base and blocks

# Last accuracy of full-length float32 runs that counts as reproduced, (middle, half width) [CIL 8.4].
CORRIDORS = {
    ("cifar100", "icarl", "cnn"): (43.2, 1.5),
    ("cifar100", "icarl", "nme"): (52.8, 1.5),
    ("cifar100", "bic", "cnn"): (48.5, 2.0),
    ("cifar100", "lwf", "cnn"): (33.9, 1.5),
    ("cifar100", "der", "cnn"): (62.0, 1.5),
    ("cifar100", "memo", "cnn"): (55.7, 1.5),
}


def _parse(table: str) -> dict[tuple[str, str], list[Published]]:
    rows: dict[tuple[str, str], list[Published]] = {}
    for line in table.strip().splitlines():
        left, curve = line.split("|")
        dataset, method, arithmetic, head, average, std, forgetting = left.split()
        optional = [None if text == "-" else float(text) for text in (std, forgetting)]
        seeds = 5 if dataset == "cifar100" or method in ("der", "memo") else 20
        values = tuple(float(text) for text in curve.split())
        row = Published(arithmetic, head, float(average), *optional, values, seeds)
        rows.setdefault((dataset, method), []).append(row)
    return rows


PUBLISHED = _parse(_TABLE)


def same_protocol(config: dict) -> bool:
    """Whether the settings of a run are those of the published rows for its data set and learner."""
    key = (config.get("dataset"), config.get("method"))
    if key not in PUBLISHED or config.get("model") == "resnet20":
        return False
    wanted = {**_COMMON, **_PROTOCOLS[key[0]]}
    if key[1] in _WITHOUT_MEMORY:
        wanted = {name: v for name, v in wanted.items() if name not in ("memory_size", "memory_policy")}
    if key[1] == "memo":
        wanted["network"] = _MEMO_NETWORKS[wanted["network"]]
    if config.get("order_seed") != config.get("seed"):
        return False
    return all(config.get(name) == value for name, value in wanted.items())


def _arithmetic(run: RunResult) -> str | None:
    """float32, hdqt for 4-bit operands with 8-bit accumulators, None for everything else."""
    scheme = run.config["scheme"]
    if scheme is None:
        return "float32"
    published = scheme.get("scheme") == "hdqt" and scheme.get("bits") == 4 and scheme.get("accumulator_bits") == 8
    return "hdqt" if published else None


def published_rows(run: RunResult) -> list[Published]:
    """The published rows to put beside a run; none unless data set, learner, protocol and arithmetic are the same."""
    if not same_protocol(run.config):
        return []
    wanted, heads = _arithmetic(run), run.heads()
    rows = PUBLISHED[run.config["dataset"], run.config["method"]]
    return [row for row in rows if row.arithmetic == wanted and row.head in heads]


def verdicts(run: RunResult) -> list[str]:
    """Sentences about the acceptance corridor of the last accuracy, for float32 runs that have one."""
    lines = []
    if run.config["scheme"] is None and same_protocol(run.config):
        for head in run.heads():
            corridor = CORRIDORS.get((run.config["dataset"], run.config["method"], head))
            values = list(run.values(f"last_acc_{head}").values())
            if corridor is not None and values:
                middle, half = corridor
                mean = sum(values) / len(values)
                verdict = "inside" if abs(mean - middle) <= half else "outside"
                lines.append(f"`last_acc_{head}` {mean:.2f} is {verdict} the corridor {middle} ± {half}.")
    return lines
