#!/usr/bin/env bash
# Everything that the embedded model is made of, from nothing to resources/ovseg_tiny.pth:
# data, CLIP, backbone, segmentation network, mask-noun pairs, mask-adapted CLIP. About four hours
# on two CPU cores, after
#
#     make install && .venv/bin/python -m pip install -e '.[stickerscenes,mining]'
#
# Each step goes on where it was when the script is started again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${PYTHON:-.venv/bin/python}
config=configs/ovseg_tiny.yaml
backbone=output/backbone_tiny/backbone.pth
segmenter=output/ovseg_tiny/model_final.pth
scenes=${DETECTRON2_DATASETS:-datasets}/stickerscenes
# with one thread losses repeat to the last digit, and the networks are too small for more
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# these trainings save their output on the way, so that it does not tell whether they are done
resume() {
    if [ -f "${1%.pt*}_resume.pt" ]; then echo --resume; fi
}

"$python" datasets/prepare_stickerscenes.py
"$python" datasets/prepare_stickerscenes.py --only more
OMP_NUM_THREADS=2 "$python" open_clip_training/pretrain.py --output output/clip_tiny/clip.pt \
    $(resume output/clip_tiny/clip.pt)
[ -f "$segmenter" ] || {
    "$python" open_clip_training/pretrain_backbone.py --output "$backbone" $(resume "$backbone")
    "$python" train_net.py --resume --config-file "$config" MODEL.WEIGHTS "$backbone"
}
# two processes, but one for each GPU where there are fewer
processes=$("$python" -c "import torch; print(min(2, torch.cuda.device_count() or 2))")
for split in train more; do
    "$python" -m torch.distributed.run --standalone --nproc-per-node "$processes" \
        open_clip_training/collect_pairs.py --config-file "$config" \
        --captions "$scenes/captions_$split.json" --images "$scenes/images/$split" --adjectives \
        --output "output/pairs_embedded/$split" --opts MODEL.WEIGHTS "$segmenter"
done
"$python" open_clip_training/train.py --clip output/clip_tiny/clip.pt \
    --train-data output/pairs_embedded/train output/pairs_embedded/more --train visual \
    --steps 1200 --warmup 18 --batch-size 128 --lr 1e-4 --seed 0 \
    --output output/clip_tiny/adapted.pt $(resume output/clip_tiny/adapted.pt)
"$python" tools/swap_clip_weights.py put "$segmenter" output/clip_tiny/adapted.pt \
    output/ovseg_tiny/adapted.pth --verify
"$python" tools/export_checkpoint.py output/ovseg_tiny/adapted.pth resources/ovseg_tiny.pth
