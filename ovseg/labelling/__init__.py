"""Labelling collections that are too large for one process or one machine (docs/labelling.md).

A collection is cut into shards, each of which is written whole or not at all. ``sources`` finds the
images, ``plan`` cuts them into shards, ``reading`` reads the images of a shard, ``work`` labels
a shard with one model, and ``run`` shares shards out: in this process, or by Ray (``on_ray``).
``output`` is the folder of the results, on this machine or elsewhere. What a shard looks like
stands in :mod:`ovseg.data.label_shards`, since a training reads it too.
"""
