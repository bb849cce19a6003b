"""Builds quintil's shared objects with CMake and puts them into the package; everything else stands in pyproject.toml.

Use `pip install --no-build-isolation .` in an environment that already has torch: libquintil.so is compiled against
the headers of one torch and works with that minor version only, while an isolated build would compile against a torch
of its own that is thrown away afterwards. cmake and ninja come from PATH or from their pip packages.

Inside the package land libquintil.so (torch.ops.quintil, C++ `quintil::`), _bindings (facts without a Tensor),
_build.py (the torch version), include/quintil.h and share/cmake/quintil. `QUINTIL_BUILD_DIR` names a build folder to
keep and reuse.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def find_tool(name: str) -> str:
    """Path of a build tool on PATH or among the scripts of this Python environment."""
    scripts = sysconfig.get_path("scripts")
    tool = shutil.which(name) or shutil.which(name, path=scripts)
    if tool is None:
        raise FileNotFoundError(f"setup.py: expected {name} on PATH or in {scripts}, got none (pip install {name})")
    return tool


class CMakeExtension(Extension):
    """All that CMakeLists.txt installs as component `python`; setuptools compiles nothing itself."""

    def __init__(self, name: str) -> None:
        super().__init__(name, sources=[])


class CMakeBuild(build_ext):
    """Configure, build, and install the component `python` into the package directory."""

    def build_extension(self, ext: CMakeExtension) -> None:
        package = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        default = Path(self.build_temp).resolve() / "cmake"
        build = Path(os.environ.get("QUINTIL_BUILD_DIR") or default).resolve()
        build.mkdir(parents=True, exist_ok=True)
        cmake, ninja = find_tool("cmake"), find_tool("ninja")
        configure = [
            cmake,
            "-G",
            "Ninja",
            "-S",
            str(ROOT),
            "-B",
            str(build),
            f"-DPython_EXECUTABLE={sys.executable}",
        ]
        if not (build / "CMakeCache.txt").exists():
            configure.append(f"-DCMAKE_MAKE_PROGRAM={ninja}")
        subprocess.run(configure, check=True)
        subprocess.run([cmake, "--build", str(build), "--target", "quintil", "_bindings"], check=True)
        subprocess.run([cmake, "--install", str(build), "--component", "python", "--prefix", str(package)], check=True)


class CleanBuildPy(build_py):
    """Starts from an empty build folder: otherwise a module deleted since the last build would stay in the wheel."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(
    ext_modules=[CMakeExtension("quintil._bindings")],
    cmdclass={"build_ext": CMakeBuild, "build_py": CleanBuildPy},
)
