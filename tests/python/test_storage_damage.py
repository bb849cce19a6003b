"""Damaged files of models and files that do not fit are refused; writing that is cut off leaves the old file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import quintil
import torch
from conftest import run_python
from quintil import DoubleRounding
from quintil.nn.tensor_file import read_tensors, write_tensors
from small_nets import Net, trained_with
from torch import nn


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "m"
    quintil.save_quantized(trained_with(DoubleRounding()), path)
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError, match="expected .*absent to be a file, got none"):
        quintil.load_quantized(Net(), tmp_path / "absent")
    for damaged, message in (
        (whole[:5], "to be a whole safetensors file"),
        (whole[:200], "to be a whole safetensors file"),
        (whole[:-1], "to be a whole safetensors file"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "to have the checksum in its header, got changed contents"),
        (whole.replace(b"body.a.codes", b"body.b.codes", 1), "to be a whole safetensors file"),  # two of one name
        (whole.replace(b"per_channel", b"per_chammel", 1), "to have the checksum in its header"),
        (whole.replace(b'"quintil":', b'"another":'), "to be a file of quintil, got one without its manifest"),
    ):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            quintil.load_quantized(Net(), tmp_path / "damaged")
    write_tensors(tmp_path / "damaged", {}, {"format": 2})
    with pytest.raises(ValueError, match="expected .*damaged to have the format 1, got 2"):
        quintil.load_quantized(Net(), tmp_path / "damaged")
    wide = Net()
    wide.body["a"] = nn.Linear(80, 16)
    extra = Net()
    extra.tail = nn.Linear(2, 2)
    bare, plain = Net(), Net()
    plain.body["a"] = nn.Linear(72, 16, bias=False)
    bare.head = nn.Linear(16, 5, bias=True)
    for model, message in (
        (wide, r"the weight of 'body.a' to be \[16, 72\], got \[16, 80\]"),
        (extra, "to have the tensors of .*, got another one, tail.bias"),
        (bare, "to have the tensors of .*, got another one, head.bias"),
        (plain, "to have the tensors of .*, got no body.a.bias"),
        (nn.Sequential(nn.Linear(2, 2)), "swap_layers: expected model to hold a module 'stem.1', got none"),
    ):
        with pytest.raises(ValueError, match=message):
            quintil.load_quantized(model, path)


def test_every_damaged_byte_is_found(tmp_path):
    """Of a small file each byte is changed, and each length tried: an error or, where nothing is said, the same."""
    tensors = {"b": torch.arange(3.0), "a.codes": torch.tensor([7, 9], dtype=torch.uint8)}
    write_tensors(tmp_path / "t", tensors, {"format": 1})
    whole, found = (tmp_path / "t").read_bytes(), 0
    for place in range(len(whole)):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
            (tmp_path / "d").write_bytes(damaged)
            with pytest.raises(ValueError, match="^read_tensors: expected "):
                read_tensors(tmp_path / "d")
            found += 1
    assert found == 2 * len(whole) > 400


# Writing that is cut off ------------------------------------------------------------------------------------------

SAVING = """
import resource, signal, sys, torch, quintil
from small_nets import trained_with
model = trained_with(quintil.DoubleRounding())
if sys.argv[2] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
while True:
    quintil.save_quantized(model, sys.argv[1])
    print("saved", flush=True)
"""


def test_a_file_that_cannot_grow_leaves_the_old_one(tmp_path):
    """As on a full disk; nothing half written stays behind."""
    path = tmp_path / "m"
    path.write_text("old")
    code = f"try:\n    exec({SAVING!r})\nexcept OSError as error:\n    print(error)"
    assert "File too large" in run_python("-c", code, str(path), "limit")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["m"]


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        ValueError, match="^write_tensors: expected .*pipe to be a file or nothing, got a device or pipe$"
    ):
        write_tensors(tmp_path / "pipe", {"a": torch.zeros(1)}, {})
    assert (tmp_path / "pipe").is_fifo()


def test_a_killed_process_leaves_a_whole_file(tmp_path):
    path = tmp_path / "m"
    packages = os.pathsep.join([str(Path(__file__).parent), str(Path(quintil.__file__).parents[1])])
    for wait in (0.0, 0.005):
        command = [sys.executable, "-c", SAVING, str(path), "go"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": packages}) as process:
            assert process.stdout.readline() == b"saved\n"
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        quintil.load_quantized(Net(), path)
