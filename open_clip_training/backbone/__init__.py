"""Pretraining of a backbone by the classes of true regions (docs/embedded-model.md)."""
