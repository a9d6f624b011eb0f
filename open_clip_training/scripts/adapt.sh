# Fine-tuning, then mask prompt tuning, as in the paper; read by the scripts beside it.
#
# They set CLIP, BATCH, PROMPT_LR. From the environment: PAIRS (what collect_pairs.py wrote),
# OUTPUT, GPUS, ACCUMULATE (passes a batch, where memory is short), EVAL_DATA ("" for no check),
# PYTHON.
# Further arguments go to both stages. Called again after an interruption it goes on from there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

GPUS=${GPUS:-8}
PAIRS=${PAIRS:-output/coco_pairs}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=python
fi
common=(--train-data "$PAIRS" --batch-size "$BATCH" --accumulate "${ACCUMULATE:-1}"
        --precision amp_bf16 --epochs 5)
if [ -n "${EVAL_DATA-ade20k_sem_seg_val}" ]; then
    common+=(--eval-data "${EVAL_DATA-ade20k_sem_seg_val}")
fi

train() {
    local output=$1
    shift
    if [ -f "${output%.pt}_resume.pt" ]; then
        set -- "$@" --resume
    fi
    "$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "$GPUS" \
        open_clip_training/train.py "${common[@]}" --output "$output" "$@"
}

train "$OUTPUT/clip_ft.pt" --clip "$CLIP" --train visual --lr 5e-6 --weight-decay 0.2 "$@"
train "$OUTPUT/clip_ft_mpt.pt" --clip "$OUTPUT/clip_ft.pt" --train mask-prompts \
    --mask-prompt-depth 3 --prompt-lr "$PROMPT_LR" "$@"
