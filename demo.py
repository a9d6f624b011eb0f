#!/usr/bin/env python3
"""Segment pictures by any words: the published name of ``ovseg segment``."""

from ovseg.cli.segment import main

if __name__ == "__main__":
    main()
