"""The web page: an image and class names in, the segmentation out, in a browser.

:mod:`ovseg.web.models` holds the models, :mod:`ovseg.web.tasks` answers what visitors ask for,
:mod:`ovseg.web.views` makes of a prediction what the page shows. These three know nothing of
Gradio; :mod:`ovseg.web.page` is the page and :mod:`ovseg.web.server` serves it.
"""
