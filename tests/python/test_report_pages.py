"""Pages and exports of real runs: every section, a self-contained HTML page, published rows, CSV and event files."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from quintil import HDQT, report
from quintil.continual import RunConfig, prepare, preset, run
from quintil.metrics import FORMULAS, read_run
from quintil.report.comparison import mean_confusion, new_sample_share, phase_seconds
from quintil.report.published import _PROTOCOLS, PUBLISHED, same_protocol

CONFIG = RunConfig(
    dataset="synthetic", method="icarl", init_cls=4, increment=4, seeds=(0, 1), memory_size=24, epochs=2, lr=0.01,
    threads=1,
)  # fmt: skip
PICTURES = (
    "acc", "saturation", *report.FORGETTINGS, "old_new", "difference", "differences", "confusion", "seconds",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A float32 and an HDQT run, two seeds and three tasks each."""
    config = CONFIG.replace(results_dir=str(tmp_path_factory.mktemp("runs")))
    return [run(config), run(config.replace(scheme=HDQT()))]


@pytest.fixture(scope="module")
def pages(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write_report(runs, tmp_path_factory.mktemp("out")).parent


class Outline(HTMLParser):
    """Checks that elements are closed in order; collects tags with their attributes, and the text."""

    void = {"meta", "br", "img"}

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data


def test_every_picture_as_png_and_svg(pages):
    for name in PICTURES:
        stem = pages / f"synthetic_icarl_B4_Inc4_{name}"
        with Image.open(stem.with_suffix(".png")) as image:
            image.load()
            assert len(image.convert("L").getcolors(256)) > 20
        root = ElementTree.parse(stem.with_suffix(".svg")).getroot()
        assert root.tag.endswith("svg") and len(list(root.iter())) > 30
    assert len(list(pages.iterdir())) == 2 * len(PICTURES) + 3


def test_the_page_needs_nothing_from_outside(pages):
    """No address but namespaces, no script, colours for dark screens, a width for phones, every number in the text."""
    page = (pages / "report.html").read_text()
    outline = Outline(page)
    used = [v for _, attributes in outline.tags for k, v in attributes.items() if k in ("href", "src", "xlink:href")]
    assert used and all(value.startswith(("#", "data:image/png;base64,")) for value in used)
    assert not {tag for tag, _ in outline.tags} & {"script", "link", "iframe", "object"}
    assert "url(" not in page.replace("url(#", "") and "@import" not in page
    assert "prefers-color-scheme:dark" in page and 'name="viewport" content="width=device-width' in page
    assert sum(tag == "svg" and "aria-label" in attributes for tag, attributes in outline.tags) > 2 * len(PICTURES)
    for name, formula in FORMULAS.items():
        assert name in outline.words and formula in outline.words
    references = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', page))
    assert references and all(f'id="{name}"' in page for name in references)


def test_markdown_and_html_say_the_same(pages):
    text, words = (pages / "report.md").read_text(), Outline((pages / "report.html").read_text()).words
    cells = {
        cell.strip(" `") for line in text.splitlines() if line.startswith("| ") for cell in line.strip("|").split("|")
    }
    assert len(cells) > 60 and all(cell in words for cell in cells)
    for heading in ("Forgetting", "Old and new classes", "Confusion", "Time and memory", "Difference to float32"):
        assert f"### {heading}\n" in text
    assert "### Saturation" in text and "Published" not in text
    for name in report.FORGETTINGS:
        assert f"{name} = {FORMULAS[name]}" in text and f"| `{name}` | " in text


def test_reports_repeat_byte_for_byte(runs, pages, tmp_path):
    report.write_report(runs, tmp_path)
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in (pages, tmp_path))
    assert first == second


def test_derived_from_the_stored_counts(runs):
    """Mean over seeds of row shares, the share of new test samples, and phases that add up to the whole time."""
    found = read_run(runs[0])
    counts = [np.load(runs[0] / f"seed{k}" / "confusion_nme_t3.npz")["counts"] for k in (0, 1)]
    want = np.mean([100.0 * c / c.sum(axis=1, keepdims=True) for c in counts], axis=0)
    assert np.allclose(mean_confusion(found, "nme"), want) and np.allclose(want.sum(axis=1), 100.0)
    assert np.allclose(new_sample_share(found, "cnn"), [100.0, 50.0, 100.0 / 3.0])
    rows = [json.loads(line) for k in (0, 1) for line in (runs[0] / f"seed{k}/timing.jsonl").read_text().splitlines()]
    whole = sum(row[key] for row in rows for key in ("train_s", "end_task_s", "eval_s")) / 2
    phases = phase_seconds(found)
    assert list(phases) == ["train", "herd", "rest of the task's end", "test"]
    assert sum(phases.values()) == pytest.approx(whole)


def test_what_was_not_stored_is_left_out(runs, tmp_path):
    """Counts and times are optional: without them the sections are absent, the others as before."""
    for path in runs:
        shutil.copytree(path, tmp_path / path.name)
        for file in [*(tmp_path / path.name).glob("*/confusion_*"), *(tmp_path / path.name).glob("*/timing.jsonl")]:
            file.unlink()
    text = report.write_report(report.find_runs(tmp_path), tmp_path / "out").read_text()
    assert "### Confusion" not in text and "train (s)" not in text and "model, float32 (kB)" in text
    names = {p.stem.removeprefix("synthetic_icarl_B4_Inc4_") for p in (tmp_path / "out").glob("*.png")}
    assert names == set(PICTURES) - {"confusion", "seconds"}


def test_saturation_is_drawn_where_it_was_counted(runs, tmp_path):
    path = shutil.copytree(runs[1], tmp_path / runs[1].name)
    for file in path.glob("*/metrics.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row["saturation"] = {
                "backbone.layers.0": {"codes": 1.0, "tiles": 10.0 * row["task"]},
                "head": {"codes": 0.5},
            }
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = report.write_report([path], tmp_path / "out")
    assert "### Saturation" in page.read_text()
    words = Outline(page.with_suffix(".html").read_text()).words
    assert "accumulator tiles" in words and "layers.0" in words and "30.0" in words


def test_a_hundred_classes(runs, tmp_path):
    """The matrix is one small image of 100 x 100 points, without a number in each cell."""
    path = shutil.copytree(runs[0], tmp_path / "run")
    for seed in (0, 1):
        file = path / f"seed{seed}" / "config.json"
        config = json.loads(file.read_text()) | {"task_sizes": [34, 33, 33], "class_names": list(map(str, range(100)))}
        file.write_text(json.dumps(config))
        for head in ("cnn", "nme"):
            for task, size in enumerate((34, 67, 100), start=1):
                np.savez_compressed(file.parent / f"confusion_{head}_t{task}.npz", counts=np.eye(size, dtype=np.int64))
    page = report.write_report([path], tmp_path / "out").with_suffix(".html").read_text()
    pictures = [base64.b64decode(text) for text in re.findall(r"data:image/png;base64,([\w+/=\s]+)", page)]
    sizes = []
    for number, raw in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(raw)
        with Image.open(tmp_path / f"{number}.png") as image:
            sizes.append(image.size)
    assert sizes.count((100, 100)) == 2 and len(page) < 1_000_000 and "colours stretched" in page


# Published rows -----------------------------------------------------------------------------------------------------


def test_published_values():
    """Each data set and learner has float32 and HDQT rows whose curves are as long as the tasks, and end in `last`."""
    tasks = {"cifar100": 5, "dsads": 10, "pamap2": 6, "hapt": 6}
    assert set(PUBLISHED) >= {(d, m) for d in tasks for m in ("lwf", "icarl", "bic", "der", "memo")}
    for (dataset, method), rows in PUBLISHED.items():
        heads = ("cnn", "nme") if method in ("icarl", "bic") else ("cnn",)
        assert [(r.arithmetic, r.head) for r in rows] == [(a, h) for a in ("float32", "hdqt") for h in heads]
        for row in rows:
            assert len(row.curve) == tasks[dataset] and row.last == row.curve[-1]
            assert abs(sum(row.curve) / len(row.curve) - row.average) < 0.02, (dataset, method, row)
    row = PUBLISHED["dsads", "icarl"][0]
    assert (row.last, row.std, row.average, row.forgetting, row.seeds) == (72.83, 4.84, 83.99, 24.91, 20)


PUBLISHED_SETTING = dict(
    dataset="dsads", method="icarl", memory_size=200, memory_policy="total", epochs=100, lr=0.01, milestones=[],
    lr_decay=0.1, batch_size=128, weight_decay=2e-4, split="hdqt", network="FCNet", features=405, fc_nr_hid=0,
    half_dims=False, norm="none", momentum=0.9, limit_batches=0, T=2.0, kd_tau2=False, exemplar_selection="herding",
    task_sizes=[2] * 9 + [1], model="fcnet",
)  # fmt: skip


@pytest.mark.parametrize("dataset, method", [("dsads", "memo"), ("hapt", "der"), ("cifar100", "memo"), ("hapt", "bic")])
def test_the_presets_are_the_published_protocol(dataset, method):
    """What a run of the preset writes into config.json, data set aside, has published rows."""
    stand_in = "synthetic:cifar" if dataset == "cifar100" else "digits"
    config = preset(f"hdqt-{dataset}", method)
    setup = prepare(config.replace(dataset=stand_in, init_cls=5, increment=5, split=None, normalise=None), 1)
    described = {**setup.describe(), "dataset": dataset, "split": config.split}
    described |= {"task_sizes": _PROTOCOLS[dataset]["task_sizes"], "features": _PROTOCOLS[dataset].get("features")}
    described = json.loads(json.dumps(described))
    assert same_protocol(described)
    assert not same_protocol({**described, "lr": 0.3})
    assert not same_protocol({**described, "network": "another"})


def test_published_rows_stand_beside_a_run_of_their_protocol(tmp_path):
    from test_report import write_run

    scheme = {"scheme": "hdqt", "bits": 4, "accumulator_bits": 8}
    plain = write_run(tmp_path / "r", "float32", {1: 70.0, 2: 74.0}, **PUBLISHED_SETTING)
    ours = write_run(tmp_path / "q", "hdqt_w4a4acc8", {1: 71.0, 2: 73.0}, **{**PUBLISHED_SETTING, "scheme": scheme})
    text = report.write_report([plain, ours], tmp_path / "out").read_text()
    assert "| published float32 | linear head | 20 | 72.83 ± 4.84 | 83.99 | 24.91 |" in text
    assert "| published HDQT w4a4acc8 | nearest-mean head | 20 | 77.19 | 86.48 | – |" in text
    assert "| published float32 | linear head | 99.92 | 97.21 | " in text
    wide = write_run(
        tmp_path / "w", "hdqt_w8a8acc32", {1: 71.0}, **{**PUBLISHED_SETTING, "scheme": scheme | {"bits": 8}}
    )
    assert "ublished" not in report.write_report([wide], tmp_path / "w2").read_text()


@pytest.mark.parametrize(
    "change",
    [dict(milestones=[50]), dict(memory_size=100), dict(split="loso"), dict(features=216), dict(epochs=20),
     dict(task_sizes=[4] * 4 + [3]), dict(method="finetune"), dict(dataset="hapt_raw"), dict(order_seed=1993)],
    ids=str,
)  # fmt: skip
def test_another_protocol_has_no_published_rows(change):
    base = {**PUBLISHED_SETTING, "seed": 1, "order_seed": 1}
    assert same_protocol(base) and not same_protocol(base | change)


# Exports ------------------------------------------------------------------------------------------------------------


def test_layout_of_the_pycil_family(runs, tmp_path):
    files = report.export_qc(runs, tmp_path)
    names = {str(file.relative_to(tmp_path / "results")) for file in files}
    folders = [f"benchmark/{head}_{top}" for head in ("cnn", "nme") for top in ("top1", "top5")] + ["times/benchmark"]
    assert names == {f"{folder}/synthetic_{seed}_fcnet_B0_Inc4.csv" for folder in folders for seed in (0, 1)}
    lines = (tmp_path / "results/benchmark/nme_top1/synthetic_1_fcnet_B0_Inc4.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines] == ["icarl", "icarl_hdqt_w4a4acc8"]
    for line, path in zip(lines, runs):
        date, _, *values = line.removesuffix(" ").split(",")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d\d-\d{3}", date)
        assert values == [f"{value:.2f}" for value in read_run(path).seeds[1].curve("nme", "acc")]
    report.export_qc(runs, tmp_path, prefix="fair")
    line = (tmp_path / "results/fair/cnn_top5/synthetic_0_fcnet_B0_Inc4.csv").read_text().splitlines()[0]
    assert line.split(",")[1:3] == ["icarl", "24"]
    before = {file: file.read_bytes() for file in files}
    assert report.export_qc(runs, tmp_path) == files and {file: file.read_bytes() for file in files} == before


def test_event_files_are_read_by_tensorboard(runs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = report.export_tensorboard(runs, tmp_path / "a")
    assert [str(f.relative_to(tmp_path / "a").parent) for f in files] == [
        f"{path.name}/seed{k}" for path in runs for k in (0, 1)
    ]
    events = EventAccumulator(str(files[3].parent), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"cnn/acc", "nme/acc", "cnn/forgetting_chaudhry", "train/loss", "time/train_s", "size/model_bytes"} <= set(
        tags
    )
    seed = read_run(runs[1]).seeds[1]
    assert [e.step for e in events.Scalars("nme/acc")] == [1, 2, 3]
    assert np.allclose([e.value for e in events.Scalars("nme/acc")], seed.curve("nme", "acc"))
    assert len(events.Scalars("train/loss")) == 6 and len(events.Scalars("cnn/forgetting_init")) == 2
    again = report.export_tensorboard(runs, tmp_path / "b")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_without_tensorboard(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    message = (
        r"^export_tensorboard: expected the package tensorboard, got none \(pip install 'quintil\[tensorboard\]'\)$"
    )
    with pytest.raises(ImportError, match=message):
        report.export_tensorboard(runs, tmp_path)


def test_find_runs(runs, tmp_path):
    experiment = runs[0].parent
    assert report.find_runs(experiment.parent) == report.find_runs(experiment) == sorted(runs)
    assert report.find_runs(runs[1]) == report.find_runs(runs[1] / "seed0") == [runs[1]]
    with pytest.raises(FileNotFoundError, match="^report: expected run directories with a finished seed "):
        report.find_runs(tmp_path)
