"""Predictions as files: one module a format, and where the files go."""
