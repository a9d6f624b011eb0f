"""Prepare Pascal VOC 2012 with 20 classes.

    python datasets/prepare_voc_sem_seg.py --split val

reads VOCdevkit/VOC2012/SegmentationClassAug and writes VOCdevkit/VOC2012/annotations_detectron2
for pascalvoc20_sem_seg_train and pascalvoc20_sem_seg_val. datasets/README.md says where the
archives come from. A stopped run goes on where it was.
"""

from ovseg.data.preparation.command import run
from ovseg.data.preparation.voc import plan

if __name__ == "__main__":
    run(__doc__, plan)
