#!/usr/bin/env python3
"""Install detectron2 without a compiler: another name of ``ovseg install-detectron2``."""

from ovseg.cli.install_detectron2 import main

if __name__ == "__main__":
    main()
