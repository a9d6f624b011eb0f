"""The paper's ablations in miniature: adapt CLIP in many ways and compare."""
