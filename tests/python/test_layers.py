"""The dependency rules of the house hold in this tree, and each rule finds the breach it is there for."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("QUINTIL_BUILD_DIR", ROOT / "build" / "cmake"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_layers = script("check_layers")
check_objects = script("check_objects")
check_skips = script("check_skips")

# A tree that obeys every rule; each case below adds or replaces one file.
SOUND = {
    "csrc/core/types.h": "#pragma once\n#include <cstdint>\n",
    "csrc/quantizers/uniform.h": '#include <cmath>\n#include "csrc/core/types.h"\n',
    "csrc/kernels/scalar/gemm.cpp": '#include "csrc/quantizers/uniform.h"\n',
    "csrc/kernels/avx2/kernels.h": '#include <cstdint>\n#include "csrc/core/types.h"\n',
    "csrc/kernels/avx2/gemm.cpp": '#include <immintrin.h>\n#include "csrc/kernels/avx2/kernels.h"\n',
    "csrc/kernels/avx2/tiles.h": '#include <immintrin.h>\n#include "csrc/core/types.h"\n',
    "csrc/kernels/dispatch.h": "#include <string>\n",
    "csrc/ops/quantize.h": "#include <ATen/core/Tensor.h>\n",
    "csrc/ops/quantize.cpp": '#include "csrc/kernels/dispatch.h"\n#include "csrc/quantizers/uniform.h"\n'
    'TORCH_LIBRARY_IMPL(quintil, CPU, m) {\n  m.impl("quantize", &cpu);\n}\n'
    'TORCH_LIBRARY_IMPL(quintil, Meta, m) {\n  m.impl("quantize", &meta);\n}\n',
    "csrc/autograd/quantize.cpp": '#include "csrc/quintil.h"\n#include <torch/library.h>\n',
    "csrc/storage/json.h": "#include <string>\n",
    "csrc/storage/set_bits.cpp": '#include <torch/csrc/jit/api/module.h>\n#include "csrc/quintil.h"\n',
    "csrc/quintil.h": "#include <optional>\n#include <ATen/core/Tensor.h>\n",
    "csrc/library.cpp": "#include <torch/library.h>\n",
    "python/quintil/__init__.py": "from . import _library, nn\n",
    "python/quintil/_library.py": "import torch\nfrom quintil import _bindings\n",
    "python/quintil/functional/codes.py": "import torch\nfrom quintil import _library\n",
    "python/quintil/nn/__init__.py": "from .. import functional\nfrom ..schemes import base\nfrom . import hdqt\n",
    "python/quintil/nn/hdqt.py": "from quintil.functional import quantize\n",
    "python/quintil/schemes/base.py": "import dataclasses\n",
    "python/quintil/continual/learner.py": "from quintil.nn import hdqt\nfrom quintil.data import digits\n",
    "python/quintil/data/digits.py": "from . import registry\n",
    "python/quintil/metrics/accuracy.py": "import math\n",
    "python/quintil/report.py": "from quintil.metrics import accuracy\n",
    "scripts/train.py": "import quintil\nprint(quintil.__version__, quintil.active_isa())\n",
}

BREACHES = [
    ("D1", "csrc/core/types.h", '#include "csrc/ops/quantize.h"\n'),
    ("D1", "csrc/kernels/dispatch.h", '#include "csrc/ops/quantize.h"\n'),
    ("D1", "csrc/ops/quantize.h", '#include "csrc/autograd/quantize.cpp"\n'),
    ("D1", "csrc/ops/quantize.h", '#include "quantize_impl.h"\n'),
    ("D1", "csrc/autograd/quantize.cpp", '#include "csrc/storage/json.h"\n'),
    ("D1", "csrc/helpers/strings.h", "#pragma once\n"),
    ("D2", "csrc/kernels/dispatch.h", "#include <c10/util/Exception.h>\n"),
    ("D2", "csrc/quantizers/uniform.h", "#include <ATen/core/Tensor.h>\n"),
    ("D3", "csrc/ops/quantize.h", "#include <immintrin.h>\n"),
    ("D3", "csrc/kernels/avx2/kernels.h", "#include <immintrin.h>\n"),
    ("D3", "csrc/kernels/scalar/gemm.cpp", "#include <x86intrin.h>\n"),
    ("D3", "csrc/kernels/avx2/gemm.cpp", "#include <algorithm>\n"),
    ("D3", "csrc/kernels/avx2/gemm.cpp", '#include "csrc/kernels/dispatch.h"\n'),
    ("D4", "csrc/kernels/dispatch.h", '#include "csrc/quantizers/uniform.h"\n'),
    ("D4", "csrc/autograd/quantize.cpp", '#include "csrc/quantizers/uniform.h"\n'),
    ("D5", "csrc/autograd/quantize.cpp", "auto y = ops::quantize(x);\n"),
    ("D6", "csrc/quintil.h", "#include <torch/library.h>\n"),
    ("D6", "csrc/quintil.h", '#include "csrc/core/types.h"\n'),
    ("D6", "csrc/ops/quantize.h", '#include "csrc/quintil.h"\n'),
    ("D7", "python/quintil/functional/codes.py", "from quintil.nn import hdqt\n"),
    ("D7", "python/quintil/functional/codes.py", "def f():\n    from ..nn import hdqt\n"),
    ("D7", "python/quintil/nn/hdqt.py", "from ..continual import learner\n"),
    ("D7", "python/quintil/schemes/base.py", "import quintil.functional\n"),
    ("D7", "python/quintil/data/digits.py", "from quintil import metrics\n"),
    ("D7", "python/quintil/data/digits.py", "import quintil\n"),
    ("D7", "python/quintil/report.py", "from quintil.data import digits\n"),
    ("D7", "python/quintil/nn/hdqt.py", "from quintil import _bindings\n"),
    ("D7", "python/quintil/tools.py", "import math\n"),
    ("D8", "python/quintil/functional/codes.py", "import ctypes\n"),
    ("D8", "python/quintil/nn/hdqt.py", "from torch.utils import cpp_extension\n"),
    ("D8", "scripts/train.py", "from quintil._library import active_isa\n"),
    ("D8", "scripts/train.py", "import quintil\nquintil.nn._swap.registry()\n"),
    (
        "D10",
        "csrc/ops/quantize.cpp",
        'TORCH_LIBRARY_IMPL(quintil, CPU, m) {\n  m.impl("quantize", &cpu);\n}\n',
    ),
]


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_this_tree_keeps_the_rules() -> None:
    assert check_layers.findings(ROOT) == []


@pytest.mark.parametrize("readme", ["csrc/README.md", "csrc/kernels/README.md"])
def test_maps_name_files_that_exist(readme: str) -> None:
    """Every file name in backticks, `name.{h,cpp}` spelled out; the op `x` is an example."""
    text = re.sub(r"```.*?```", "", (ROOT / readme).read_text(), flags=re.DOTALL)
    quoted = re.findall(r"`([\w./-]+\.(?:h|cpp|py|txt|\{h,cpp\}))`", text)
    named = [name.replace("{h,cpp}", end) for name in quoted for end in (("h", "cpp") if "{" in name else ("",))]
    files = [path.as_posix() for top in ("csrc", "python", "scripts", "tests") for path in (ROOT / top).rglob("*")]
    files += [path.as_posix() for path in ROOT.iterdir()]
    examples = {"ops/x.cpp", "autograd/x.cpp", "tests/python/test_x.py"}
    assert len(named) > 10
    assert [n for n in named if n not in examples and not any(f.endswith(f"/{n}") for f in files)] == []


def test_a_sound_tree_has_no_findings(tmp_path: Path) -> None:
    plant(tmp_path, SOUND)
    assert check_layers.findings(tmp_path) == []


@pytest.mark.parametrize(("rule", "name", "text"), BREACHES, ids=lambda value: value.strip().replace("\n", " ")[:50])
def test_each_breach_is_found(tmp_path: Path, rule: str, name: str, text: str) -> None:
    plant(tmp_path, {**SOUND, name: text})
    assert [(found, path) for found, path, _ in check_layers.findings(tmp_path)] == [(rule, tmp_path / name)]


def test_the_command_names_rule_and_file(tmp_path: Path) -> None:
    plant(tmp_path, {**SOUND, "csrc/kernels/dispatch.h": "#include <fmt/format.h>\n"})
    command = [sys.executable, str(ROOT / "scripts" / "check_layers.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith("D2 csrc/kernels/dispatch.h: includes fmt/format.h")


def test_the_built_objects_keep_the_rules() -> None:
    assert check_objects.findings(BUILD) == []


def compiled(tmp_path: Path, code: str) -> Path:
    source, target = tmp_path / "gemm.cpp", tmp_path / "gemm.cpp.o"
    source.write_text(code)
    subprocess.run(["g++", "-O0", "-c", str(source), "-o", str(target)], check=True)
    return target


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "inline int twice(int x) { return 2 * x; }\nint f(int x) { return twice(x); }\n",
            "weak symbol twice(int)",
        ),
        (
            "template <int N> int add(int x) { return x + N; }\nint f(int x) { return add<3>(x); }\n",
            "weak symbol int add",
        ),
        ("int seed();\nint value = seed();\n", "static initialiser"),
    ],
)
def test_shared_bodies_and_initialisers_are_found(tmp_path: Path, code: str, words: str) -> None:
    lines = [line for rule, _, line in check_objects.object_findings(compiled(tmp_path, code)) if rule == "D9"]
    assert any(line.startswith(words) for line in lines), lines


def test_a_plain_kernel_object_is_fine(tmp_path: Path) -> None:
    code = "namespace {\nint twice(int x) { return 2 * x; }\n}\nint f(int x) { return twice(x); }\n"
    assert list(check_objects.object_findings(compiled(tmp_path, code))) == []


def test_a_library_that_needs_python_is_found(tmp_path: Path) -> None:
    library = tmp_path / "libquintil.so"
    (tmp_path / "a.cpp").write_text('extern "C" int Py_IsInitialized();\nint f() { return Py_IsInitialized(); }\n')
    subprocess.run(["g++", "-shared", "-fPIC", str(tmp_path / "a.cpp"), "-o", str(library)], check=True)
    assert list(check_objects.library_findings(library)) == [
        ("D8", "libquintil.so", "needs the Python symbol Py_IsInitialized")
    ]


@pytest.mark.parametrize(
    ("source", "flags", "rule"),
    [
        ("kernels/dispatch.cpp", "-ffp-contract=off -mavx2", "D9"),
        ("kernels/scalar/gemm.cpp", "-ffp-contract=off -mavx512f", "D9"),
        ("ops/quantize.cpp", "-ffp-contract=off -march=native", "D9"),
        ("ops/quantize.cpp", "-ffp-contract=off -flto", "D9"),
        ("ops/quantize.cpp", "-ffp-contract=off -ffast-math", "N3"),
        ("kernels/avx2/gemm.cpp", "-mavx2", "N3"),
        ("kernels/avx2/gemm.cpp", "-mavx2 -ffp-contract=off", None),
        ("kernels/dispatch.cpp", "-ffp-contract=off -m64 -O3", None),
    ],
)
def test_flags_out_of_place_are_found(source: str, flags: str, rule: str | None) -> None:
    entry = {"file": f"/src/csrc/{source}", "command": f"g++ {flags} -c /src/csrc/{source}"}
    rules = {found for found, _, _ in check_objects.flag_findings([entry])}
    assert rules == ({rule} if rule else set())


def test_an_empty_build_folder_is_no_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected .* to hold compile_commands.json of quintil, got none"):
        check_objects.findings(tmp_path)


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        ("", 0),
        ('<skipped message="this CPU lacks the instruction set amx"/>', 0),
        (
            '<skipped message="SKIP_RETURN_CODE=77"/><system-out>skipped: this CPU lacks the instruction set amx</system-out>',
            0,
        ),
        ('<skipped message="SKIP_RETURN_CODE=77"/><system-out>no data</system-out>', 1),
        ('<skipped type="pytest.skip" message="no network"/>', 1),
        ('<skipped type="pytest.xfail" message=""/>', 1),
    ],
)
def test_skips_need_an_absent_instruction_set(tmp_path: Path, case: str, lines: int) -> None:
    report = tmp_path / "report.xml"
    report.write_text(f'<testsuite><testcase classname="a" name="b">{case}</testcase></testsuite>')
    assert len(check_skips.forbidden_skips(report)) == lines
    assert check_skips.main([str(report)]) == (1 if lines else 0)
