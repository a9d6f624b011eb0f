#!/bin/sh
# The published search for mask threshold and ensemble weight, in one pass over ADE20K-150:
#
#     sh tools/search_thr_ensemble_w.sh
#
# Change ckpt below, or give it: sh tools/search_thr_ensemble_w.sh checkpoint.pth [KEY VALUE ...]
# All GPUs that are there are used. Results: output/search_thr_ensemble_w.
config=configs/ovseg_swinB_vitL_bs32_120k.yaml
ckpt=ovseg_swinbase_vitL14_ft_mpt.pth

if [ $# -gt 0 ]; then
    ckpt=$1
    shift
fi
python=.venv/bin/python
[ -x "$python" ] || python=python
exec "$python" tools/search_ensemble.py --config-file "$config" \
    --thresholds '0.35 0.4 0.45' --weights '0.6 0.65 0.7 0.75 0.8' \
    --output output/search_thr_ensemble_w \
    MODEL.WEIGHTS "$ckpt" DATASETS.TEST ade20k_sem_seg_val "$@"
