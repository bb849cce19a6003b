#!/usr/bin/env python3
"""Trains or quantises one network under VecQ: see --help, and `quintil.cli.train_vecq`."""

import sys

from quintil.cli.train_vecq import main

if __name__ == "__main__":
    sys.exit(main())
