"""Data sets of the user's own, described by a small yaml file (docs/own-data.md shows each form).

``description`` reads the yaml file and checks it; ``registration`` registers what it describes in
detectron2's catalogues. Each form of ground truth has a file: ``label_values`` (label maps),
``colours``, ``coco_instances``, ``coco_panoptic`` and ``yolo``. The dataset dicts of all but COCO
panoptic carry ``truth``, a :class:`ovseg.data.own.truth.Truth`, by which
:func:`ovseg.data.label_maps.read_truth` makes the label map of an image.
"""
