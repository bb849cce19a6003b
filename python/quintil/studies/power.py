"""Energy that the machine itself measured, by the counters of its processor packages (RAPL)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def package_counters(root: Path = POWERCAP) -> list[Path]:
    """Folders of the package counters that can be read; empty where the machine has none or keeps them for root.

    root: where Linux shows them; packages are intel-rapl:N (AMD's too), not their parts intel-rapl:N:M.
    """
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if folder.name.count(":") == 1:
            try:
                int((folder / "energy_uj").read_text())
                int((folder / "max_energy_range_uj").read_text())
            except (OSError, ValueError):
                continue
            found.append(folder)
    return found


def measure_package_energy(run: Callable[[], object], repeats: int = 1, *, root: Path = POWERCAP) -> float | None:
    """Joules of one `run()`, the mean of `repeats`, as the packages counted them; None without a readable counter.

    Everything that the machine does meanwhile counts. A counter may wrap once: no longer than a minute or so.
    ValueError for repeats below 1.
    """
    if repeats < 1:
        raise ValueError(f"measure_package_energy: expected repeats of at least 1, got {repeats}")
    counters = package_counters(root)
    if not counters:
        return None
    before = [_microjoules(counter) for counter in counters]
    for _ in range(repeats):
        run()
    total = 0
    for counter, start in zip(counters, before):
        spent = _microjoules(counter) - start
        total += spent if spent >= 0 else spent + int((counter / "max_energy_range_uj").read_text())
    return total / 1e6 / repeats


def _microjoules(counter: Path) -> int:
    return int((counter / "energy_uj").read_text())
