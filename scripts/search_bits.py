#!/usr/bin/env python3
"""Chooses a bit width for every layer under budgets: see --help, and `quintil.cli.search_widths`."""

import sys

from quintil.cli.search_widths import main

if __name__ == "__main__":
    sys.exit(main())
