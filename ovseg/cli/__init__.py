"""The ``ovseg`` command."""
