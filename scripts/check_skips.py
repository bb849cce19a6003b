"""Fails if a JUnit report holds a skipped test whose reason is not an instruction set that this CPU lacks.

usage: check_skips.py REPORT.xml [REPORT.xml ...]
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ALLOWED = re.compile(r"this CPU lacks the instruction set [a-z0-9]+")
CTEST_SKIP = "SKIP_RETURN_CODE"  # ctest's own words; the reason stands in the output of the test


def forbidden_skips(report: Path) -> list[str]:
    """One line per skipped test of a JUnit file whose reason is not allowed. Raises ValueError if it holds no test."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    if not cases:
        raise ValueError(f"check_skips: expected {report} to hold tests, got none")
    lines = []
    for case in cases:
        for skipped in case.iter("skipped"):
            reason = f"{skipped.get('message', '')} {skipped.text or ''}"
            if CTEST_SKIP in reason:
                reason = case.findtext("system-out", "")
            if not ALLOWED.search(reason):
                lines.append(f"{report.name}: {case.get('classname')}.{case.get('name')}: {reason.strip()}")
    return lines


def main(reports: list[str]) -> int:
    lines = [line for report in reports for line in forbidden_skips(Path(report))]
    for line in lines:
        print(f"skipped for a reason that is not an absent instruction set: {line}")
    return 1 if lines or not reports else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
