#!/usr/bin/env python3
"""Segment pictures in a web page: another name of ``ovseg web``."""

from ovseg.cli.web import main

if __name__ == "__main__":
    main()
