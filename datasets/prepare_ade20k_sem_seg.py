"""Prepare ADE20K with 150 classes.

    python datasets/prepare_ade20k_sem_seg.py --split val

reads ADEChallengeData2016/annotations and writes ADEChallengeData2016/annotations_detectron2 for
ade20k_sem_seg_train and ade20k_sem_seg_val. datasets/README.md says where the archive comes from.
A stopped run goes on where it was.
"""

from ovseg.data.preparation.ade20k import plan
from ovseg.data.preparation.command import run

if __name__ == "__main__":
    run(__doc__, plan)
