#!/bin/sh
# The published search for mask threshold and ensemble weight, in one pass over ADE20K-150:
#
#     sh tools/search_thr_ensemble_w.sh
#
# Change ckpt below, or give it: sh tools/search_thr_ensemble_w.sh [checkpoint.pth] [KEY VALUE ...]
# All GPUs that are there are used. It works in the repository's folder, whence paths among KEY
# VALUE count. Results: output/search_thr_ensemble_w there.
config=configs/ovseg_swinB_vitL_bs32_120k.yaml
ckpt=ovseg_swinbase_vitL14_ft_mpt.pth

# anything but a config key, such as MODEL.DEVICE, is the checkpoint
case ${1-KEY} in
    '' | *[![:upper:][:digit:]_.]*)
        ckpt=$1
        shift
        ;;
esac
case $ckpt in
    /*) ;;
    *) [ ! -f "$ckpt" ] || ckpt=$PWD/$ckpt ;;
esac
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit
python=.venv/bin/python
[ -x "$python" ] || python=python
exec "$python" tools/search_ensemble.py --config-file "$config" \
    --thresholds '0.35 0.4 0.45' --weights '0.6 0.65 0.7 0.75 0.8' \
    --output output/search_thr_ensemble_w \
    MODEL.WEIGHTS "$ckpt" DATASETS.TEST ade20k_sem_seg_val "$@"
