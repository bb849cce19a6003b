"""Reads run directories (layout of [CIL 7]); writes nothing and needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

HEADS = ("cnn", "nme")
#: Entries of config.json that may differ between the seeds of one run.
SEED_KEYS = ("seed", "order_seed", "class_order", "subjects_train", "subjects_test", "checksums")


@dataclass(frozen=True)
class SeedResult:
    """One finished or unfinished seed: its settings, one record per finished task, and the summary if it ended."""

    seed: int
    config: dict
    tasks: list[dict]
    summary: dict | None

    def curve(self, head: str, name: str) -> list[float | None]:
        """Values of one metric per task for head "cnn" or "nme"; empty if the learner has no such head."""
        return [record[head][name] for record in self.tasks if head in record]


@dataclass(frozen=True)
class RunResult:
    """All seeds of one run directory. `seeds` holds finished ones only; `unfinished` lists the others."""

    path: Path
    seeds: dict[int, SeedResult]
    unfinished: list[int] = field(default_factory=list)

    @property
    def config(self) -> dict:
        return next(iter(self.seeds.values())).config

    @property
    def label(self) -> str:
        """Short name of the quantisation scheme, or float32."""
        return self.config["scheme_label"]

    def values(self, name: str) -> dict[int, float]:
        """Seed -> value of one summary number, for the seeds that have it."""
        return {
            seed: result.summary[name] for seed, result in self.seeds.items() if result.summary.get(name) is not None
        }

    def heads(self) -> list[str]:
        return [head for head in HEADS if self.values(f"last_acc_{head}")]


def read_seed(path: str | Path) -> SeedResult:
    """Read one `seed<k>` directory; FileNotFoundError without config.json, ValueError for a damaged file."""
    path = Path(path)
    config = _json(path / "config.json")
    tasks = []
    if (path / "metrics.jsonl").is_file():
        lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        tasks = [_parse(path / "metrics.jsonl", line, number) for number, line in enumerate(lines, start=1)]
    summary = _json(path / "summary.json") if (path / "summary.json").is_file() else None
    return SeedResult(int(config["seed"]), config, tasks, summary)


def read_run(path: str | Path) -> RunResult:
    """Read a run directory (`runs/<exp>/<name>`) with its `seed<k>` folders; FileNotFoundError if there is none."""
    path = Path(path)
    folders = sorted(folder for folder in path.glob("seed*") if (folder / "config.json").is_file())
    if not folders:
        raise FileNotFoundError(f"read_run: expected seed folders with a config.json, got none (in {path})")
    results = sorted((read_seed(folder) for folder in folders), key=lambda result: result.seed)
    return RunResult(
        path,
        {result.seed: result for result in results if result.summary is not None},
        [result.seed for result in results if result.summary is None],
    )


def _json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"read_seed: expected the file {path.name}, got nothing (in {path.parent})")
    return _parse(path, path.read_text(encoding="utf-8"), None)


def _parse(path: Path, text: str, line: int | None) -> dict:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}" if line is None else f"{path}, line {line}"
        raise ValueError(f"read_seed: expected {path.name} to be JSON, got {error.msg.lower()} (in {where})") from None
    return value
