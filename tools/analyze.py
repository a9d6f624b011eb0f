#!/usr/bin/env python3
"""Find out where a model loses its score: another name of ``ovseg analyze``."""

from ovseg.cli.analyze import main

if __name__ == "__main__":
    main()
