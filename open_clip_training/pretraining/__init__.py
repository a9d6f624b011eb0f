"""Pretraining of the embedded CLIP on whole pictures and captions."""
