"""StickerScenes: a generated data set with perfect masks, names and captions.

Emoji drawings lie on procedural textures: :mod:`vocabulary` says what is called how, :mod:`artwork`
fetches and renders the drawings, :mod:`textures` paints the stuff, :mod:`scenes` and
:mod:`captions` draw scenes by lot, :mod:`render` makes pixels of them, and :mod:`generate` writes
the splits.
"""
