#!/usr/bin/env python3
"""Find the ensemble's weight and mask threshold: another name of ``ovseg search``."""

from ovseg.cli.search import main

if __name__ == "__main__":
    main()
