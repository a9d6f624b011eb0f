"""Mask-noun pairs from images with captions, or from label maps (paper section 3.2)."""
