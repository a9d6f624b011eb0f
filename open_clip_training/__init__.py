"""Training of CLIP: pretraining of the embedded model, adaptation to masks."""
