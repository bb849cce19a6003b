"""Reports from hand-made run folders: tables, paired differences, which pictures, and the same bytes twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from quintil import report
from quintil.metrics import read_run

SETTING = dict(
    dataset="toy", method="icarl", memory_size=20, memory_policy="total", milestones=[3], lr=0.1, lr_decay=0.1, epochs=5,
    batch_size=8, split=None, network="FCNet", learner_variant="CE + KD", task_sizes=[2, 2, 1],
)  # fmt: skip
CURVES = ("acc", "forgetting_class_best_old", "forgetting_chaudhry")
PICTURES = (*CURVES, "difference", "differences")  # the hand-made folders hold no counts and no times


def write_run(path: Path, label: str, last: dict[int, float], heads=("cnn", "nme"), order=None, **changes) -> Path:
    """A run whose last accuracy per seed is given: the curve falls to it from 100, the nearest mean is 2 better."""
    config = {
        **SETTING,
        "scheme": None if label == "float32" else {"scheme": label},
        "scheme_label": label,
        **changes,
    }
    tasks = len(config["task_sizes"])
    for seed, value in last.items():
        folder = path / f"seed{seed}"
        folder.mkdir(parents=True)
        own = dict(
            seed=seed,
            order_seed=seed,
            class_order=order or [seed, 1],
            subjects_train=None,
            subjects_test=None,
        )
        (folder / "config.json").write_text(json.dumps({**config, **own, "checksums": {"x": "0"}, "version": "1"}))
        records, summary = [], {"seed": seed}
        for head in heads:
            final = value + 2 * (head == "nme")
            curve = [final + (100 - final) * (tasks - t) / tasks for t in range(1, tasks + 1)]
            for t, acc in enumerate(curve, start=1):
                forgetting = 100 - acc if t > 1 else None
                records.append((t, head, dict(zip(CURVES, (acc, forgetting, forgetting)))))
            summary[f"last_acc_{head}"], summary[f"avg_inc_acc_{head}"] = final, sum(curve) / tasks
            summary[f"forgetting_class_best_old_{head}"] = 100 - final if tasks > 1 else None
        table = [{"task": t, **{h: v for n, h, v in records if n == t}} for t in range(1, tasks + 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
        (folder / "summary.json").write_text(json.dumps(summary))
    return path


@pytest.fixture
def pair(tmp_path):
    plain = write_run(tmp_path / "toy_icarl_B2_Inc2", "float32", {1: 80.0, 2: 84.0, 3: 88.0})
    ours = write_run(tmp_path / "toy_icarl_B2_Inc2_hdqt_w4a4acc8", "hdqt_w4a4acc8", {1: 79.0, 2: 82.5, 3: 87.5})
    return [plain, ours]


def images(folder: Path) -> dict[str, tuple[int, int]]:
    """Size of every PNG, each decoded in full."""
    sizes = {}
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG" and len(image.convert("L").getcolors(256)) > 4
            sizes[path.name] = image.size
    return sizes


def test_table_and_paired_differences(pair, tmp_path):
    page = report.write_report(reversed(pair), tmp_path / "out")  # float32 comes first in any case
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert rows[:8] == [
        "| arithmetic | head | seeds | `last_acc` | `avg_inc_acc` | `forgetting_class_best_old` |",
        "|---|---|---|---|---|---|",
        "| float32 | linear head | 3 | 84.00 ± 4.00 | 89.33 ± 2.67 | 16.00 ± 4.00 |",
        "| float32 | nearest-mean head | 3 | 86.00 ± 4.00 | 90.67 ± 2.67 | 14.00 ± 4.00 |",
        "| hdqt_w4a4acc8 | linear head | 3 | 83.00 ± 4.27 | 88.67 ± 2.85 | 17.00 ± 4.27 |",
        "| hdqt_w4a4acc8 | nearest-mean head | 3 | 85.00 ± 4.27 | 90.00 ± 2.85 | 15.00 ± 4.27 |",
        # -1, -1.5, -0.5: mean -1, std 0.5, half width 4.3027 * 0.5 / sqrt(3)
        "| hdqt_w4a4acc8 − float32 | linear head | 3 | -1.00 [-2.24, +0.24] | -0.67 [-1.49, +0.16] | "
        "+1.00 [-0.24, +2.24] |",
        "| hdqt_w4a4acc8 − float32 | nearest-mean head | 3 | -1.00 [-2.24, +0.24] | -0.67 [-1.49, +0.16] | "
        "+1.00 [-0.24, +2.24] |",
    ]
    assert rows[8:11] == [
        "| arithmetic | head | t=1 | t=2 | t=3 |",
        "|---|---|---|---|---|",
        "| float32 | linear head | 94.67 | 89.33 | 84.00 |",
    ]
    text = page.read_text()
    assert "## toy, icarl, 3 tasks (2, 2, 1 classes)" in text and "seeds 1, 2, 3." in text
    assert "lr 0.1 x0.1 at 3, split default" in text
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [entry["label"] for entry in content] == ["float32", "hdqt_w4a4acc8"]
    assert content[0]["summary"]["last_acc_cnn"]["std"] == 4.0 and "minus_float32" not in content[0]
    assert content[1]["minus_float32"]["last_acc_nme"]["mean"] == -1.0
    assert content[1]["by_seed"]["last_acc_cnn"] == {"1": 79.0, "2": 82.5, "3": 87.5}


def test_pictures(pair, tmp_path):
    page = report.write_report(pair, tmp_path / "out")
    sizes = images(tmp_path / "out")
    assert set(sizes) == {f"toy_icarl_B2_Inc2_{name}.png" for name in PICTURES}
    assert {sizes[f"toy_icarl_B2_Inc2_{name}.png"] for name in CURVES} == {(1380, 625)}
    assert all(f"]({name})" in page.read_text() for name in sizes)
    names = [*sizes, *(name.replace(".png", ".svg") for name in sizes), "report.html", "report.json", "report.md"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)


def test_twice_the_same_bytes(pair, tmp_path):
    for name in ("a", "b", "a"):
        report.write_report(pair, tmp_path / name)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "ab")
    assert first == second and len(first) == 2 * len(PICTURES) + 3


@pytest.mark.parametrize(
    "case", [dict(last={1: 79.0, 2: 82.5}), dict(last={1: 79.0, 2: 82.5, 4: 70.0}),
             dict(last={1: 79.0, 2: 82.5, 3: 87.5}, order=[7, 7])]
)  # fmt: skip
def test_what_cannot_be_paired_is_said(pair, tmp_path, case):
    """Other seeds, or the same seeds on other class orders: shown side by side, never subtracted."""
    other = write_run(tmp_path / "other", "hdqt_other", **case)
    text = report.write_report([pair[0], other], tmp_path / "out").read_text()
    assert "| hdqt_other − float32 | linear head | " in text and text.count("not comparable") == 6
    entry = json.loads((tmp_path / "out" / "report.json").read_text())[1]
    assert set(entry["minus_float32"].values()) == {None}
    if list(case["last"]) != [1, 2, 3]:
        seeds = ", ".join(map(str, case["last"]))
        assert f"float32: seeds 1, 2, 3; hdqt_other: seeds {seeds}." in text


def test_runs_of_other_settings_stand_apart(pair, tmp_path):
    other = write_run(tmp_path / "b" / pair[0].name, "float32", {1: 50.0}, lr=0.5)
    text = report.write_report([*pair, other], tmp_path / "out").read_text()
    assert text.count("## toy, icarl, 3 tasks") == 2 and text.count("− float32 | linear head") == 1
    names = set(images(tmp_path / "out"))
    assert names == {f"toy_icarl_B2_Inc2_{picture}.png" for picture in PICTURES} | {
        f"toy_icarl_B2_Inc2_2_{curve}.png" for curve in CURVES
    }
    one, two = ((tmp_path / "out" / f"toy_icarl_B2_Inc2{n}_acc.png").read_bytes() for n in ("", "_2"))
    assert one != two


def test_many_schemes_are_all_drawn(pair, tmp_path):
    runs = [pair[0], *(write_run(tmp_path / f"r{k}", f"scheme{k}", {1: 70.0 - 3 * k}) for k in range(10))]
    pictures = []
    for count in (10, 11):
        report.write_report(runs[:count], tmp_path / str(count))
        pictures.append((tmp_path / str(count) / "toy_icarl_B2_Inc2_acc.png").read_bytes())
    assert pictures[0] != pictures[1]


def test_one_task_has_no_curves(tmp_path):
    path = write_run(tmp_path / "r", "float32", {1: 80.0}, heads=("cnn",), method="offline", task_sizes=[5])
    text = report.write_report([path], tmp_path / "out").read_text()
    assert images(tmp_path / "out") == {} and "![" not in text
    assert "| float32 | linear head | 1 | 80.00 | 80.00 | – |" in text


def test_one_head_makes_one_panel(tmp_path):
    path = write_run(tmp_path / "r", "float32", {1: 80.0, 2: 70.0}, heads=("cnn",), method="finetune")
    text = report.write_report([path], tmp_path / "out").read_text()
    assert set(images(tmp_path / "out").values()) == {(690, 654)} and "exemplars" not in text


def test_unfinished_seeds_are_named_and_not_counted(pair, tmp_path):
    (pair[1] / "seed2" / "summary.json").unlink()
    text = report.write_report(pair, tmp_path / "out").read_text()
    assert "Unfinished seeds, not counted: hdqt_w4a4acc8: 2." in text and "not comparable" in text
    for seed in (1, 3):
        (pair[1] / f"seed{seed}" / "summary.json").unlink()
    with pytest.raises(ValueError, match="^write_report: expected a finished seed, got only unfinished ones"):
        report.write_report(pair, tmp_path / "out")


def test_refused(tmp_path):
    with pytest.raises(ValueError, match="^write_report: expected at least one run directory, got none$"):
        report.write_report([], tmp_path)
    with pytest.raises(FileNotFoundError, match="^read_run: expected seed folders with a config.json, got none"):
        report.write_report([tmp_path], tmp_path)


def test_plain_table(pair):
    lines = report.plain_table([read_run(path) for path in pair]).splitlines()
    assert lines[0].split() == ["arithmetic", "head", "seeds", *report.HEADLINES] and set(lines[1]) == {"-"}
    column = lines[0].index("last_acc")
    assert [line[column:].split("  ")[0] for line in lines[2:5]] == [
        "84.00 ± 4.00",
        "86.00 ± 4.00",
        "83.00 ± 4.27",
    ]
    assert not any(line.endswith(" ") or "`" in line for line in lines)
