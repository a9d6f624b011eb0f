"""StickerScenes: a generated data set with perfect masks, names and captions.

:mod:`vocabulary` says what is called how; :mod:`packages`, :mod:`icons` and :mod:`artwork` fetch,
find and render the drawings; :mod:`textures` paints the stuff; :mod:`sampler` and :mod:`captions`
draw :mod:`scenes` by lot, :mod:`render` makes pixels of them, :mod:`generate` writes the splits.
"""
