#!/usr/bin/env python3
"""Train and evaluate methods side by side: another name of ``ovseg compare``."""

from ovseg.cli.compare import main

if __name__ == "__main__":
    main()
