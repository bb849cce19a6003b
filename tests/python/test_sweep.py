"""Sweeps: the same bytes wherever jobs run; failures and interruptions lose nothing that is finished."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import quintil
from conftest import PACKAGE_ROOT, heed_ctrl_c
from quintil.continual import RunConfig, SweepError, run, sweep
from quintil.continual.checkpoint import digest, read_checkpoint
from quintil.metrics import read_run

BASE = RunConfig(
    dataset="synthetic", method="icarl", increment=4, seeds=(0, 1), memory_size=48, epochs=1, lr=0.05, threads=1,
    exp_name="sweep",
)  # fmt: skip


def configs(folder: Path) -> list[RunConfig]:
    base = BASE.replace(results_dir=str(folder))
    return [base, base.replace(scheme=quintil.HDQT()), base.replace(method="finetune", seeds=(0,))]


def files(folder: Path) -> dict[str, object]:
    """Everything that must not depend on where a job ran; of a checkpoint, what the learner is."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".pt":
            content = read_checkpoint(path)
            found[str(path.relative_to(folder))] = digest(
                {name: content[name] for name in ("task", "learner", "history")}
            )
        elif path.is_file() and path.name not in ("env.json", "timing.jsonl"):
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same configurations, one after the other in this process."""
    folder = tmp_path_factory.mktemp("alone")
    for config in configs(folder):
        run(config)
    return files(folder)


@pytest.mark.parametrize("where", [{"workers": 2}, {"ray_address": "local"}])
def test_same_bytes_wherever_jobs_run(alone, tmp_path, where):
    seen = []
    paths = sweep(configs(tmp_path), **where, on_job=lambda job, result: seen.append((job.seed, result)))
    assert [path.name for path in paths] == [
        "synthetic_icarl_B4_Inc4",
        "synthetic_icarl_B4_Inc4_hdqt_w4a4acc8",
        "synthetic_finetune_B4_Inc4",
    ]
    assert sorted(seed for seed, _ in seen) == [0, 0, 0, 1, 1] and all(isinstance(r, Path) for _, r in seen)
    assert files(tmp_path) == alone
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    assert sweep(configs(tmp_path), workers=1) == paths
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}, "finished: skipped"


def test_a_failing_job_stops_no_other(tmp_path):
    good, *_ = configs(tmp_path)
    bad = good.replace(lr=1e9, method="joint")
    with pytest.raises(
        SweepError, match=r"got 2 failed\n  synthetic joint float32 seed 0: FloatingPointError"
    ) as caught:
        sweep([bad, good], workers=2)
    assert {job.seed for job in caught.value.failures} == {0, 1}
    assert sorted(read_run(tmp_path / "sweep" / "synthetic_icarl_B4_Inc4").seeds) == [0, 1]


def test_bad_numbers_are_refused(tmp_path):
    for bad in ({"workers": 0}, {"threads": 0}):
        with pytest.raises(ValueError, match="sweep: expected workers and threads of at least 1"):
            sweep(configs(tmp_path), **bad)
    assert sweep([]) == []


SCRIPT = """
import os, sys
from test_sweep import configs
from pathlib import Path
from quintil.continual import sweep
if __name__ == "__main__":
    one, two, three = configs(Path(sys.argv[1]))
    sweep([one, two.replace(epochs=4000)], workers=2, on_job=lambda job, _: print("done", job, flush=True))
"""


def start(tmp_path: Path) -> subprocess.Popen:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(PACKAGE_ROOT), str(Path(__file__).parent)])
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "runs")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )  # fmt: skip


def workers_of(session: int) -> list[int]:
    """Processes that still live in a session."""
    out = subprocess.run(["ps", "-o", "pid=", "--sid", str(session)], capture_output=True, text=True).stdout
    return [int(pid) for pid in out.split()]


def check_workers_end(process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 20
    while workers_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers_of(process.pid) == []


def test_ctrl_c_ends_the_workers_and_keeps_finished_seeds(tmp_path):
    process = start(tmp_path)
    lines = [process.stdout.readline() for _ in range(2)]
    assert all(line.startswith("done synthetic icarl float32") for line in lines)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    check_workers_end(process)
    assert sorted(read_run(tmp_path / "runs/sweep/synthetic_icarl_B4_Inc4").seeds) == [0, 1]


def test_workers_end_with_a_killed_parent(tmp_path):
    """Else they would write into folders that the repeated command works in."""
    process = start(tmp_path)
    assert process.stdout.readline() and process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    check_workers_end(process)


def test_a_killed_worker_loses_its_job_alone(tmp_path):
    """Every kill of the worker of the endless job costs a retry; in the end that job is reported, the others are done."""
    process = start(tmp_path)
    assert process.stdout.readline() and process.stdout.readline()
    for _ in range(40):
        for pid in workers_of(process.pid):
            command = Path(f"/proc/{pid}/cmdline").read_bytes() if Path(f"/proc/{pid}").exists() else b""
            if pid != process.pid and b"spawn_main" in command:
                os.kill(pid, signal.SIGKILL)
        if process.poll() is not None:
            break
        time.sleep(1.5)
    _, errors = process.communicate(timeout=60)
    assert "SweepError: sweep: expected every job to finish" in errors and "BrokenProcessPool" in errors
    assert sorted(read_run(tmp_path / "runs/sweep/synthetic_icarl_B4_Inc4").seeds) == [0, 1]
