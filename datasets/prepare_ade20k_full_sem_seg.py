"""Prepare ADE20K-Full with 847 classes.

    python datasets/prepare_ade20k_full_sem_seg.py --split val

reads the images that ADE20K_2021_17_01/index_ade20k.pkl lists and writes images_detectron2 and
annotations_detectron2 beside it for ade20k_full_sem_seg_train and ade20k_full_sem_seg_val. Images
with both sides above 512 pixels are made smaller. datasets/README.md says where the archive comes
from. A stopped run goes on where it was.
"""

from ovseg.data.preparation.ade20k_full import plan
from ovseg.data.preparation.command import run

if __name__ == "__main__":
    run(__doc__, plan)
