#!/usr/bin/env python3
"""Write a model for programs without PyTorch: another name of ``ovseg export``."""

from ovseg.cli.export import main

if __name__ == "__main__":
    main()
