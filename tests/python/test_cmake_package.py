"""`cmake --install` gives C++ programs find_package(quintil), from a folder that knows nothing of the source tree."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("QUINTIL_BUILD_DIR", ROOT / "build" / "cmake"))
TORCH = Path(importlib.util.find_spec("torch").submodule_search_locations[0])


def run(*command: str | Path, **options: object) -> str:
    """Output of a command; its whole text is the message of the failure otherwise."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    assert done.returncode == 0, f"{command} returned {done.returncode}:\n{done.stdout}"
    return done.stdout


def run_consumer(folder: Path, *prefixes: Path | str) -> str:
    """Builds tests/cpp/consumer in `folder` with the given CMAKE_PREFIX_PATH and returns what the program prints."""
    prefix_path = ";".join(str(prefix) for prefix in prefixes)
    source = ROOT / "tests" / "cpp" / "consumer"
    run(
        "cmake",
        "-G",
        "Ninja",
        "-S",
        source,
        "-B",
        folder,
        f"-DCMAKE_PREFIX_PATH={prefix_path}",
        "-DCMAKE_BUILD_TYPE=Debug",
    )
    run("cmake", "--build", folder)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return run(folder / "consumer", env=environment)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("installed with spaces")
    run("cmake", "--install", BUILD, "--prefix", prefix)
    return prefix


def test_install_holds_library_header_and_config_only(prefix: Path) -> None:
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
    config = ("quintilConfig.cmake", "quintilConfigVersion.cmake", "quintilTorch.cmake")
    assert files == {
        "lib/libquintil.so",
        "include/quintil.h",
        *(f"share/cmake/quintil/{name}" for name in config),
    }


def test_installed_files_name_no_folder_of_the_build(prefix: Path) -> None:
    for path in filter(Path.is_file, prefix.rglob("*.cmake")):
        assert str(ROOT) not in path.read_text(), path
    dynamic = run("readelf", "--dynamic", "--wide", prefix / "lib" / "libquintil.so")
    assert "[$ORIGIN:$ORIGIN/../torch/lib]" in dynamic
    assert str(ROOT) not in dynamic


def test_a_stranger_builds_and_runs(prefix: Path, tmp_path: Path) -> None:
    assert run_consumer(tmp_path, prefix, TORCH / "share" / "cmake") == "ok\n"


@pytest.mark.parametrize(
    ("torch_version", "words"), [("2.12.0", "is built for torch"), (None, "expected CMAKE_PREFIX_PATH")]
)
def test_another_torch_is_refused(prefix: Path, tmp_path: Path, torch_version: str | None, words: str) -> None:
    """A torch of another minor version, and no torch at all, end the configuration with one sentence."""
    torch = tmp_path / "torch"
    torch.mkdir()
    if torch_version:
        for name in ("include/ATen/core/Tensor.h", "lib/libtorch_cpu.so", "lib/libc10.so"):
            (torch / name).parent.mkdir(parents=True, exist_ok=True)
            (torch / name).touch()
        header = torch / "include" / "torch" / "headeronly" / "version.h"
        header.parent.mkdir(parents=True)
        parts = zip(("MAJOR", "MINOR", "PATCH"), torch_version.split("."), strict=True)
        header.write_text("".join(f"#define TORCH_VERSION_{part} {number}\n" for part, number in parts))
    source = ROOT / "tests" / "cpp" / "consumer"
    command = ["cmake", "-S", source, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix};{torch}"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode != 0
    assert words in " ".join(done.stderr.split())


def test_a_build_may_hold_the_scalar_kernels_alone(tmp_path: Path) -> None:
    """QUINTIL_ISAS="": the dispatcher, without a QUINTIL_HAS_ definition, needs no folder but scalar."""
    kernels = ROOT / "csrc" / "kernels"
    main = tmp_path / "main.cpp"
    main.write_text(
        '#include <cstdio>\n#include "csrc/kernels/dispatch.h"\n'
        "int main() { for (const auto& name : quintil::kernels::runnable()) std::puts(name.c_str()); }\n"
    )
    sources = [
        main,
        kernels / "dispatch.cpp",
        kernels / "cpu_features.cpp",
        *sorted(kernels.glob("scalar/*.cpp")),
    ]
    run("g++", "-std=c++20", "-O0", "-I", ROOT, *sources, "-o", tmp_path / "main")
    environment = {key: value for key, value in os.environ.items() if key != "QUINTIL_ISA"}
    assert run(tmp_path / "main", env=environment) == "scalar\n"


def test_the_library_refuses_an_instruction_set_that_cannot_run() -> None:
    """Import ends with the C++ message, which lists what can run."""
    environment = {**os.environ, "QUINTIL_ISA": "sse42", "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run([sys.executable, "-c", "import quintil"], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "QUINTIL_ISA: expected one of scalar" in done.stderr and "got sse42" in done.stderr
