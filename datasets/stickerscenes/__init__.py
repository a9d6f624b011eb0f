"""StickerScenes: a generated data set with perfect masks, names and captions.

:mod:`ovseg.data.stickerscenes` says what is called how. Here :mod:`packages`, :mod:`icons` and
:mod:`sprites` fetch, find and render the drawings; :mod:`textures` paints the stuff;
:mod:`sampler` and :mod:`captions` draw :mod:`scenes` by lot, :mod:`render` makes pixels of them,
:mod:`generate` writes the splits. The package belongs to ``datasets/prepare_stickerscenes.py``,
whose folder Python puts on the path of imports. By default the data set is written into this very
folder, beside the code; git sees the code alone.
"""
