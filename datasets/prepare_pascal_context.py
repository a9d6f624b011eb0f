"""Prepare Pascal Context with 59 and with 459 classes.

    python datasets/prepare_pascal_context.py --split val

reads VOCdevkit/VOC2010/trainval/*.mat and writes VOCdevkit/VOC2010/annotations_detectron2 for
pascal_context_59_sem_seg_* and pascal_context_459_sem_seg_*. datasets/README.md says where the
archives come from. A stopped run goes on where it was.
"""

from ovseg.data.preparation.command import run
from ovseg.data.preparation.pascal_context import plan

if __name__ == "__main__":
    run(__doc__, plan)
