#!/usr/bin/env python3
"""Trains one network for several bit widths: see --help, and `quintil.cli.train_widths`."""

import sys

from quintil.cli.train_widths import main

if __name__ == "__main__":
    sys.exit(main())
