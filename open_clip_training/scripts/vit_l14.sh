#!/usr/bin/env bash
# Adapt OpenAI's ViT-L/14; the result is output/adapted_vit_l14/clip_ft_mpt.pt. See adapt.sh.
CLIP=ViT-L/14
BATCH=256
PROMPT_LR=0.02
OUTPUT=${OUTPUT:-output/adapted_vit_l14}
source "$(dirname "$0")/adapt.sh"
