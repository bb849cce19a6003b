"""`pip install --no-build-isolation .` gives a package that works without the source tree, in Python and for C++."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from test_cmake_package import BUILD, ROOT, run, run_consumer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package; the objects of the development build are reused."""
    site = tmp_path_factory.mktemp("site")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        site,
    ]
    run(*pip, ROOT, env={**os.environ, "QUINTIL_BUILD_DIR": str(BUILD)})
    return site


def python(site: Path, folder: Path, code: str) -> list[str]:
    """Lines that `code` prints in a fresh interpreter that starts in `folder` and finds the installed package first."""
    return run(sys.executable, "-c", code, cwd=folder, env={**os.environ, "PYTHONPATH": str(site)}).splitlines()


def test_the_wheel_holds_what_is_needed_and_nothing_else(site: Path) -> None:
    package = site / "quintil"
    for name in (
        "libquintil.so",
        "_build.py",
        "include/quintil.h",
        "share/cmake/quintil/quintilConfig.cmake",
    ):
        assert (package / name).is_file(), name
    assert len(list(package.glob("_bindings.*.so"))) == 1
    top = {path.name for path in site.iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"quintil", "bin"}
    assert [path.name for path in (site / "bin").iterdir()] == ["quintil"], "the command, and nothing else"
    sources = {str(path.relative_to(ROOT / "python")) for path in (ROOT / "python" / "quintil").rglob("*.py")}
    installed = {str(path.relative_to(site)) for path in package.rglob("*.py")}
    assert installed == sources


def test_an_op_runs_from_the_installed_package(site: Path, tmp_path: Path) -> None:
    code = (
        "import torch, quintil\n"
        "print(quintil.__file__)\n"
        "a = torch.tensor([[7] * 32], dtype=torch.int8)\n"
        "print(torch.ops.quintil.tiled_int_mm(a, a.t()).item())\n"
        "print(quintil.active_isa() in quintil.runnable_isas())\n"
        "runtimes = {line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}\n"
        "print(len(runtimes))\n"
    )
    file, value, obeyed, runtimes = python(site, tmp_path, code)
    assert Path(file).is_relative_to(site)
    assert int(value) == 127  # 32 * 49, held by an accumulator of 8 bits
    assert obeyed == "True"
    assert int(runtimes) == 1  # torch's OpenMP runtime and no second one


def test_a_cpp_program_builds_against_the_installed_package(site: Path, tmp_path: Path) -> None:
    [prefix] = python(site, tmp_path, "import quintil; print(quintil.cmake_prefix_path)")
    assert Path(prefix).is_relative_to(site)
    [torch] = python(site, tmp_path, "import torch; print(torch.utils.cmake_prefix_path)")
    assert run_consumer(tmp_path / "build", prefix, torch) == "ok\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "(package / '_build.py').write_text('TORCH_VERSION = \"2.12.1\"\\n')",
            "expected torch 2.12.*, got 2.13",
        ),
        ("(package / 'libquintil.so').unlink()", "got no such file (the C++ part is not built"),
        ("(package / 'libquintil.so').write_bytes(b'not a library')", "likely causes: torch was changed"),
    ],
    ids=["other torch", "no library", "broken library"],
)
def test_a_damaged_installation_says_what_is_wrong(site: Path, tmp_path: Path, change: str, words: str) -> None:
    """Import fails with ImportError and the cause; the copy is damaged, not the installed package."""
    code = (
        "import pathlib, shutil, sys\n"
        f"shutil.copytree({str(site / 'quintil')!r}, 'quintil')\n"
        "package = pathlib.Path('quintil')\n"
        f"{change}\n"
        "sys.path.insert(0, '.')\n"
        "sys.dont_write_bytecode = True\n"
        "try:\n    import quintil\n"
        "except ImportError as error:\n    print(' '.join(str(error).split()))\n"
    )
    assert words in "\n".join(python(site, tmp_path, code))
