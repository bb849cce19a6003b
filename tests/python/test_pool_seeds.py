"""`scripts/reproduce/pool_seeds.py`: two tables with different seeds give the numbers of one with all of them."""

import json
import subprocess
import sys
from pathlib import Path

from quintil.metrics import estimate, paired_difference

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reproduce" / "pool_seeds.py"
FLOAT32 = {"1": 80.0, "2": 82.5, "3": 79.0, "4": 85.0}
HDQT = {"1": 79.5, "2": 80.0, "3": 79.5, "4": 83.0}


def table(path, seeds):
    def entry(label, values):
        kept = {seed: values[seed] for seed in seeds}
        setting = {"dataset": "hapt", "method": "icarl", "bic_compat": False}
        return {"label": label, "setting": setting, "by_seed": {"last_acc_cnn": kept, "avg_inc_acc_cnn": kept}}

    path.write_text(json.dumps([entry("float32", FLOAT32), entry("hdqt", HDQT)]))
    return str(path)


def run(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


def test_seeds_of_two_tables_are_pooled(tmp_path):
    files = [table(tmp_path / "a.json", "13"), table(tmp_path / "b.json", "24")]
    done = run(*files, "--out", str(tmp_path / "both"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "both.md").read_text()
    mean = estimate(list(FLOAT32.values()))
    d = paired_difference({int(k): v for k, v in HDQT.items()}, {int(k): v for k, v in FLOAT32.items()})
    assert f"| hapt icarl | float32 | 4 | {mean} | {mean} |" in text
    assert f"| hapt icarl | hdqt − float32 | 4 | {d.mean:+.2f} [{d.low:+.2f}, {d.high:+.2f}] |" in text


def test_a_seed_that_stands_twice_and_a_missing_file_are_refused(tmp_path):
    first, second = table(tmp_path / "a.json", "12"), table(tmp_path / "b.json", "23")
    done = run(first, second)
    assert done.returncode == 1 and "expected different seeds in each file, got 2 twice (hapt icarl, " in done.stderr
    done = run(str(tmp_path / "none.json"))
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
