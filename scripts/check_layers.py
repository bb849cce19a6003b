"""Checks the dependency rules D1-D8 and D10 that can be read from the sources: who includes and imports whom.

usage: check_layers.py [ROOT]          (default: this source tree; prints one line per finding, exit code 1 if any)

D9, and the half of D8 about libquintil, need compiled objects: check_objects.py.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

LAYERS = ("core", "quantizers", "kernels", "ops", "autograd", "storage", "library")
TOP_FILES = ("library.cpp", "bindings.cpp", "quintil.cpp", "quintil.h")
TORCH = ("torch/", "ATen/", "c10/", "fmt/")
INTRINSICS = re.compile(r"(\w*intrin|arm_neon|arm_sve)\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.MULTILINE)
REGISTRATION = re.compile(r"TORCH_LIBRARY_IMPL\(quintil,\s*(\w+),\s*\w+\)\s*\{(.*?)\}[ \t]*$", re.MULTILINE | re.DOTALL)
REGISTERED = re.compile(r'\.impl\(\s*"(?:quintil::)?(\w+)"')
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)

PYTHON_LAYERS = ("_library", "functional", "nn", "bits", "studies", "continual", "experiments", "cli")
PYTHON_BELOW = {"_build": "_library", "_bindings": "_library"}  # made by the build; facts, for _library alone
PYTHON_LEAVES = ("schemes", "models", "data", "metrics")
PYTHON_ENTRIES = ("__init__", "__main__")

Finding = tuple[str, Path, str]


class Source:
    """One C++ file: its place in the house and what it includes."""

    def __init__(self, csrc: Path, path: Path) -> None:
        self.path = path
        self.place = path.relative_to(csrc)
        self.text = COMMENT.sub("", path.read_text(encoding="utf-8"))
        self.includes = INCLUDE.findall(self.text)
        self.layer = layer_of(self.place)
        self.isa = self.place.parts[1] if self.layer == "kernels" and len(self.place.parts) == 3 else None

    @property
    def in_isa_folder(self) -> bool:
        return self.isa is not None and self.isa != "scalar"

    @property
    def own(self) -> list[str]:
        """Includes of our own files, without the leading csrc/."""
        return [name.removeprefix("csrc/") for quote, name in self.includes if quote == '"']

    @property
    def foreign(self) -> list[str]:
        return [name for quote, name in self.includes if quote == "<"]


def layer_of(place: Path) -> str | None:
    if len(place.parts) == 1:
        return "library" if place.name in TOP_FILES else None
    return place.parts[0] if place.parts[0] in LAYERS[:-1] else None


def d1_order(source: Source, csrc: Path) -> Iterator[str]:
    if source.layer is None:
        yield f"lies in none of the layers {', '.join(LAYERS)}"
        return
    for quote, name in source.includes:
        if quote == '"' and (not name.startswith("csrc/") or not (csrc.parent / name).is_file()):
            yield f'includes "{name}": expected the path of an existing file from the root, "csrc/..."'
    for name in source.own:
        other = layer_of(Path(name))
        if other is not None and name != "quintil.h" and LAYERS.index(other) > LAYERS.index(source.layer):
            yield f"includes {name}: {source.layer} comes before {other}"


def d2_torch(source: Source, csrc: Path) -> Iterator[str]:
    if source.layer not in ("ops", "autograd", "storage", "library"):
        for _, name in source.includes:
            if name.startswith(TORCH):
                yield f"includes {name}: only ops, autograd, storage and the top files know torch"


def d3_intrinsics(source: Source, csrc: Path) -> Iterator[str]:
    for name in source.foreign:
        if INTRINSICS.search(name) and not (source.in_isa_folder and source.path.name != "kernels.h"):
            yield f"includes {name}: intrinsics belong into the files of an ISA folder, kernels.h excepted"
    if source.in_isa_folder:
        for quote, name in source.includes:
            own = name.removeprefix("csrc/")
            if quote == "<":
                fine = name == "cstdint" or INTRINSICS.search(name)
            else:
                fine = own == "core/types.h" or own.startswith(f"kernels/{source.isa}/")
            if not fine:
                yield f"includes {name}: an ISA folder takes intrinsics, <cstdint>, types.h and its headers only"


def d4_law(source: Source, csrc: Path) -> Iterator[str]:
    if source.layer in ("quantizers", "ops") or source.isa == "scalar":
        return
    for name in source.own:
        if name.startswith("quantizers/"):
            yield f"includes {name}: the law is for kernels/scalar and ops only"


def d5_dispatcher(source: Source, csrc: Path) -> Iterator[str]:
    if source.layer == "autograd":
        for call in re.findall(r"\bops::\w+(?=\s*\()", source.text):
            yield f"calls {call}: expected a call through the dispatcher (quintil.h or a local handle)"


def d6_public_header(source: Source, csrc: Path) -> Iterator[str]:
    if source.place == Path("quintil.h"):
        for quote, name in source.includes:
            if quote == '"' or ("/" in name and not name.startswith("ATen/")):
                yield f"includes {name}: the public header takes std and ATen only"
    elif "quintil.h" in source.own and source.layer not in ("autograd", "storage", "library"):
        yield "includes quintil.h: only autograd and later may"


def d10_meta(source: Source, csrc: Path) -> Iterator[str]:
    if source.layer != "ops":
        return
    registered: dict[str, set[str]] = {"CPU": set(), "Meta": set()}
    for key, body in REGISTRATION.findall(source.text):
        registered.setdefault(key, set()).update(REGISTERED.findall(body))
    for op in sorted(registered["CPU"] ^ registered["Meta"]):
        yield f"registers {op} for CPU or Meta alone: both share one check"


CPP_RULES: dict[str, Callable[[Source, Path], Iterator[str]]] = {
    "D1": d1_order,
    "D2": d2_torch,
    "D3": d3_intrinsics,
    "D4": d4_law,
    "D5": d5_dispatcher,
    "D6": d6_public_header,
    "D10": d10_meta,
}


def imported_modules(tree: ast.AST, package: str) -> Iterator[str]:
    """Full names of the quintil modules that a file of `package` imports; `from quintil import x` is quintil.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "quintil")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            if base == "quintil":
                yield from (f"quintil.{alias.name}" for alias in node.names)
            elif base.startswith("quintil."):
                yield base


def may_import(importer: str, imported: str) -> bool:
    """Whether a module of unit `importer` (the first name below quintil) may import one of unit `imported`."""
    if imported in PYTHON_BELOW:
        return importer == PYTHON_BELOW[imported]
    if importer == imported or importer in PYTHON_ENTRIES:
        return True
    if importer in PYTHON_LEAVES:
        return False
    if importer == "report":
        return imported == "metrics"
    if imported == "report":
        return importer in ("continual", "experiments", "cli")
    if imported in PYTHON_LEAVES:
        return True
    return imported in PYTHON_LAYERS and PYTHON_LAYERS.index(imported) < PYTHON_LAYERS.index(importer)


def check_python(package: Path) -> Iterator[Finding]:
    """D7 for every module of the package, D8 for what could reach C++ past torch.ops."""
    known = {*PYTHON_LAYERS, *PYTHON_LEAVES, *PYTHON_BELOW, *PYTHON_ENTRIES, "report"}
    for path in sorted(package.rglob("*.py")):
        parts = ("quintil", *path.relative_to(package).with_suffix("").parts)
        unit = parts[1]
        if unit not in known:
            yield "D7", path, f"{unit} has no place in the order {' -> '.join(PYTHON_LAYERS)} nor among the leaves"
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for name in imported_modules(tree, ".".join(parts[:-1])):
            imported = name.split(".")[1] if "." in name else "__init__"
            if not may_import(unit, imported):
                yield "D7", path, f"imports {name}: {unit} may not import {imported}"
        yield from (("D8", path, line) for line in foreign_doors(tree))


def foreign_doors(tree: ast.AST) -> Iterator[str]:
    doors = ("ctypes", "cffi", "torch.utils.cpp_extension")
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if any(name == door or name.startswith(door + ".") for door in doors):
                yield f"imports {name}: Python reaches C++ through torch.ops.quintil"


def check_scripts(scripts: Path) -> Iterator[Finding]:
    """D8: scripts use public names."""
    for path in sorted(scripts.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute) and private(node.attr):
                names = [ast.unparse(node)]
            for name in names:
                parts = name.split(".")
                if parts[0] == "quintil" and any(map(private, parts)):
                    yield "D8", path, f"uses {name}: scripts use public names"


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def findings(root: Path) -> list[Finding]:
    """Every breach of a rule below `root`, as (rule, file, what is wrong)."""
    csrc = root / "csrc"
    found: list[Finding] = []
    for path in sorted([*csrc.rglob("*.h"), *csrc.rglob("*.cpp")]):
        source = Source(csrc, path)
        for rule, check in CPP_RULES.items():
            found += [(rule, path, line) for line in check(source, csrc)]
    found += check_python(root / "python" / "quintil")
    found += check_scripts(root / "scripts")
    return found


def main(arguments: list[str]) -> int:
    root = Path(arguments[0] if arguments else Path(__file__).resolve().parent.parent)
    if not (root / "csrc").is_dir():
        raise FileNotFoundError(f"check_layers: expected ROOT to hold csrc, got {root}")
    found = findings(root)
    for rule, path, line in found:
        print(f"{rule} {path.relative_to(root)}: {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
