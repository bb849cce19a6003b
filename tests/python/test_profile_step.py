"""`scripts/profile_step.py`: functions fall into their phases on every instruction set; the page shows them."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import profile_step  # noqa: E402

KERNELS = "quintil::kernels::avx2::(anonymous namespace)::"
SAMPLES = {
    ("libquintil.so", f"{KERNELS}block<4, 1, (quintil::Overflow)1, quintil::kernels::avx2::IntegerSink>"): 30.0,
    ("libquintil.so", "quintil::kernels::avx512vnni::(anonymous namespace)::short_block<6>"): 5.0,
    ("libquintil.so", f"{KERNELS}draw_words"): 10.0,
    ("libquintil.so", f"{KERNELS}fill_rows<8, short>"): 9.0,
    ("libquintil.so", "quintil::kernels::avx2::im2col_u8"): 4.0,
    ("libquintil.so", "quintil::kernels::avx2::batch_norm_grad_s16f32"): 3.0,
    ("libquintil.so", "quintil::kernels::avx2::pack_b_s8"): 2.0,
    ("libquintil.so", "quintil::kernels::avx2::fwht_s16_cols"): 2.0,
    ("libtorch_cpu.so", "at::native::batch_norm_cpu"): 20.0,
    ("[kernel.kallsyms]", "clear_page_erms"): 8.0,
    ("libpython3.11.so.1.0", "_PyEval_EvalFrameDefault"): 4.0,
    ("libsomething.so", "f"): 3.0,
}


def test_functions_fall_into_their_phases():
    shares = profile_step.by_phase(SAMPLES)
    assert sum(shares.values()) == pytest.approx(100)
    want = {
        "products": 35, "random bits": 10, "rounding": 9, "unfolding": 4, "normalisation": 3, "packing": 2,
        "transforms": 2, "float layers": 20, "memory": 8, "Python": 4, "other": 3, "ranges": 0,
    }  # fmt: skip
    assert shares == want


def test_products_are_counted():
    b, k, n = 128, 256, 256
    assert profile_step.products_of("linear_128x256x256") == 2 * 2 * b * k * n  # the first layer: no input gradient


def test_the_page_shows_every_phase_and_adds_up():
    text = profile_step.page("linear_128x256x256", "hdqt", 0.5, profile_step.by_phase(SAMPLES), 1e9)
    assert "| products | 175 | 35.0 % |" in text and "1.0 Gop a step, 6 Gop/s in it" in text
    assert all(f"| {phase} |" in text for phase in profile_step.PHASES)


def test_without_perf_one_line_says_what_to_install(tmp_path):
    command = [sys.executable, str(SCRIPTS / "profile_step.py"), "--out", str(tmp_path / "page.md")]
    environment = {"PATH": str(tmp_path), "PYTHONPATH": str(SCRIPTS.parent / "python")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "expected perf on the PATH, got none (apt-get install linux-perf)" in done.stderr
