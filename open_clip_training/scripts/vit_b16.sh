#!/usr/bin/env bash
# Adapt OpenAI's ViT-B/16; the result is output/adapted_vit_b16/clip_ft_mpt.pt. See adapt.sh.
CLIP=ViT-B/16
BATCH=1024
PROMPT_LR=0.05
OUTPUT=${OUTPUT:-output/adapted_vit_b16}
source "$(dirname "$0")/adapt.sh"
