"""Adaptation of CLIP to masked crops: fine-tuning, mask prompt tuning (paper 3.2, 3.3)."""
