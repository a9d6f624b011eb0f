#!/usr/bin/env python3
"""Train and evaluate: the published name of ``ovseg train`` and ``ovseg evaluate``."""

from ovseg.cli.train import main

if __name__ == "__main__":
    main()
