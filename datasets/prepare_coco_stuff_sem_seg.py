"""Prepare COCO-Stuff (171 classes), the training data.

    python datasets/prepare_coco_stuff_sem_seg.py

reads coco/stuffthingmaps/{train2017,val2017} and writes coco/stuffthingmaps_detectron2 for
coco_2017_train_stuff_sem_seg and coco_2017_val_stuff_sem_seg. datasets/README.md says where the
archives come from. A stopped run goes on where it was.
"""

from ovseg.data.preparation.coco_stuff import plan
from ovseg.data.preparation.command import run

if __name__ == "__main__":
    run(__doc__, plan)
