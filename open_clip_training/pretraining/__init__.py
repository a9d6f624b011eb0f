"""Pretraining of the embedded CLIP on whole images and captions."""
