"""The data sets: what they are, which files they need, and where the files come from.

`quintil train --dataset NAME --data_root DIR` looks for the files in DIR and two levels below; --download fetches
absent ones from their publisher. The environment variable QUINTIL_DATA_ROOT is the default of --data_root.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="quintil datasets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    options = parser.parse_args(arguments)
    from quintil.data.catalogue import CATALOGUE

    unknown = [name for name in options.names if name not in CATALOGUE]
    if unknown:
        parser.error(f"expected names of {', '.join(CATALOGUE)}, got {', '.join(unknown)}")
    for name in options.names or CATALOGUE:
        entry = CATALOGUE[name]
        print(f"{name}  {entry.what}")
        rows = {"shape": entry.shape, "split": entry.split, "files": entry.files, "from": entry.source}
        for title, text in rows.items():
            lines = textwrap.wrap(text, 104, break_long_words=False, break_on_hyphens=False)
            print("\n".join([f"  {title:<7}{lines[0]}", *(f"{'':<9}{line}" for line in lines[1:])]))
        print()
    return 0
