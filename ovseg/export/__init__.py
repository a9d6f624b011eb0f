"""A trained model as ONNX graphs, for :mod:`ovseg.runtime` and for other programs.

What depends on an image's pixels, on a crop's and on a text is a graph each
(:mod:`ovseg.export.graphs`); what joins them is plain arithmetic, as ``docs/export.md`` describes.
:func:`ovseg.export.write.export_model` writes the folder.
"""
