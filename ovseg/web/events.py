"""Which event of the page calls which handler, and what an outcome changes.

Values arrive from the page as they are (``preprocess=False``): an image is the record of an upload
and not yet decoded, so that a broken file is told of as everywhere, by :mod:`ovseg.utils.images`.
"""

from __future__ import annotations

import contextvars
import functools
import html
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ovseg.data.vocabulary import BUILT_IN_NAMES, SEPARATOR, read_vocabulary
from ovseg.errors import UserError
from ovseg.web.handlers import Handlers, Outcome
from ovseg.web.region_view import RegionView
from ovseg.web.views import AREA_HEADERS

logger = logging.getLogger(__name__)

# All that computes waits for its turn in one line, since it shares the processor; and it has one
# thread. Each thread that ever computed would keep memory of its own for what it may need again.
_COMPUTING = ThreadPoolExecutor(1, thread_name_prefix="computing")
_QUEUED = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
_AT_ONCE = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


@dataclass(frozen=True)
class ExampleImage:
    """An image to try, with class names that fit it."""

    image: Path
    class_names: tuple[str, ...]


@dataclass
class Parts:
    """The parts of the page that events read and change."""

    image: gr.Image
    examples: gr.Dataset
    class_names: gr.Textbox
    segment: gr.Button
    model: gr.Dropdown
    opacity: gr.Slider
    weight: gr.Slider
    threshold: gr.Slider
    reject: gr.Slider
    built_in: gr.Dropdown
    result: RegionView
    status: gr.Markdown
    tabs: dict[str, gr.Tab]
    areas: gr.Dataframe
    gallery: gr.Gallery
    branches: gr.Dataframe
    files: gr.File
    shown: gr.State
    open_tab: gr.State
    best_classes: gr.State

    @property
    def inputs(self) -> list[Any]:
        """What :meth:`Handlers.segment` takes."""
        return [
            self.image, self.class_names, self.model, self.weight, self.threshold, self.reject,
            self.opacity, self.open_tab,
        ]  # fmt: skip

    @property
    def outputs(self) -> list[Any]:
        """What an :class:`Outcome` changes, in the order of :func:`_changes`."""
        return [
            self.shown, self.result, self.status, self.areas, self.gallery, self.best_classes,
            self.branches, self.files,
        ]  # fmt: skip


def connect(parts: Parts, handlers: Handlers, examples: Sequence[ExampleImage]) -> None:
    """Let the page's events call the handlers; inside of the page's ``with``."""
    segment = _changing(handlers.segment)
    queued: dict[str, Any] = {
        "inputs": parts.inputs, "outputs": parts.outputs, "preprocess": False, **_QUEUED
    }  # fmt: skip
    # what is asked for while something runs comes after it, once
    parts.segment.click(segment, trigger_mode="always_last", **queued)
    parts.class_names.submit(segment, trigger_mode="always_last", **queued)
    parts.examples.click(
        lambda index: [str(examples[index].image), "\n".join(examples[index].class_names)],
        parts.examples,
        [parts.image, parts.class_names],
        **_AT_ONCE,
    ).then(segment, **queued)
    emptied: dict[str, Any] = {"outputs": parts.outputs, **_AT_ONCE}
    parts.image.upload(_nothing, **emptied).then(_changing(handlers.upload), **queued)
    parts.image.clear(_nothing, **emptied)

    # what is shown follows the sliders; before there is anything, they are only moved
    again = {**queued, "inputs": [parts.shown, *parts.inputs], "show_progress": "hidden"}
    follow = _changing(functools.partial(_again, handlers))
    for slider in (parts.opacity, parts.weight, parts.threshold, parts.reject):
        slider.input(follow, trigger_mode="always_last", **again)
    parts.model.input(
        _told(functools.partial(_own_settings, handlers)),
        parts.model,
        [parts.weight, parts.threshold, parts.reject],
        **_QUEUED,
    ).success(follow, **again)
    parts.built_in.input(_built_in_names, parts.built_in, parts.class_names, **_AT_ONCE)

    fill = {**queued, "inputs": [parts.shown, parts.open_tab]}
    for name, tab in parts.tabs.items():
        tab.select(functools.partial(str, name), outputs=parts.open_tab, **_AT_ONCE).then(
            _changing(handlers.open_tab), **fill
        )
    parts.gallery.select(_best_classes, parts.best_classes, parts.branches, **_AT_ONCE)


def _told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler that computes, in its turn; its errors are messages in the page."""

    def called(*values: Any) -> Any:
        try:
            # in the context of the request, where Gradio keeps what belongs to it
            return _COMPUTING.submit(contextvars.copy_context().run, handler, *values).result()
        except UserError as error:
            # a message may be HTML, and this one quotes what a visitor gave
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        except Exception as error:
            logger.exception("a request failed")
            message = "This did not work; the server's log says why."
            raise gr.Error(message, print_exception=False) from error

    return called


def _changing(handler: Callable[..., Outcome]) -> Callable[..., list[Any]]:
    """A handler whose outcome changes the page, and whose errors are messages in it."""
    told = _told(handler)

    def called(*values: Any) -> list[Any]:
        outcome = told(*values)
        if outcome.warning:
            gr.Warning(html.escape(outcome.warning))
        return _changes(outcome)

    return called


def _changes(outcome: Outcome) -> list[Any]:
    """The values of :attr:`Parts.outputs`."""
    kept = gr.skip()
    result: Any = kept
    if outcome.regions is not None:
        regions = outcome.regions
        result = gr.update(value=regions, color_map=regions.colours)
        kept = None  # what the tabs that are closed hold belongs to the segmentation before
    areas: Any = kept
    if outcome.areas is not None:
        areas = _coloured(outcome.areas, outcome.area_colours)
    gallery: Any = kept
    best_classes: Any = kept
    if outcome.cards is not None:
        gallery = [(card.image, card.caption) for card in outcome.cards]
        best_classes = [card.best for card in outcome.cards]
    files: Any = kept
    if outcome.files is not None:
        files = [str(path) for path in outcome.files]
    branches = kept if outcome.cards is None else None
    return [
        outcome.shown or gr.skip(), result, outcome.status or gr.skip(), areas, gallery,
        best_classes, branches, files,
    ]  # fmt: skip


def _coloured(rows: list[list[str]], colours: list[str]) -> dict[str, Any]:
    """Rows of areas with each class's colour at its left."""
    styling = [
        [f"border-left: 10px solid {colour or 'transparent'}", *[""] * (len(row) - 1)]
        for row, colour in zip(rows, colours, strict=True)
    ]
    return {"data": rows, "headers": AREA_HEADERS, "metadata": {"styling": styling}}


def _nothing() -> list[None]:
    """Empty the answer's side."""
    return [None] * 8


def _again(handlers: Handlers, shown: Any, *values: Any) -> Outcome:
    return handlers.segment(*values) if shown else Outcome()


def _own_settings(handlers: Handlers, model: str) -> list[Any]:
    own = handlers.tasks.models.own_settings(model)
    usable = own.ensemble_weight is not None
    weight = gr.Slider(value=own.slider_weight, interactive=usable)
    return [weight, own.mask_threshold, own.reject]


def _built_in_names(name: str | None) -> str:
    words = read_vocabulary(name).words_of_class if name in BUILT_IN_NAMES else ()
    return "\n".join(f" {SEPARATOR} ".join(of_class) for of_class in words)


def _best_classes(cards: Any, event: gr.SelectData) -> Any:
    """The table of a chosen proposal."""
    return cards[event.index] if cards and event.index < len(cards) else None
