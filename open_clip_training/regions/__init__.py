"""Adaptation of CLIP to a shared pass: regions of whole images (docs/speed.md)."""
