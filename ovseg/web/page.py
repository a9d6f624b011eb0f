"""The page: its parts, and which event calls which handler.

Pictures arrive as upload records and not as decoded images (``preprocess=False``), so that a broken
file is told of by :mod:`ovseg.utils.images`, as everywhere.
"""

from __future__ import annotations

import functools
import html
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ovseg import __version__
from ovseg.data.vocabulary import BUILT_IN_NAMES, SEPARATOR, read_vocabulary
from ovseg.errors import UserError
from ovseg.web.handlers import AREAS, FILES, PROPOSALS, Handlers, Outcome
from ovseg.web.views import AREA_HEADERS, BRANCH_HEADERS

logger = logging.getLogger(__name__)

TITLE = "OVSeg: segment anything you can name"
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
# files of visitors are deleted after two hours; looked after every ten minutes
_DELETE_FILES = (600, 7200)
# all that computes waits for its turn in one line, since it shares the processor
_QUEUED = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
_QUIET = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


@dataclass(frozen=True)
class Example:
    """A picture to try, with class names that fit it."""

    picture: Path
    class_names: tuple[str, ...]


def theme() -> gr.themes.Base:
    """Colours, and the fonts that the visitor's system has: none is fetched."""
    return gr.themes.Soft(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


@dataclass
class _Parts:
    """The parts of the page that events read and change."""

    picture: gr.Image
    class_names: gr.Textbox
    built_in: gr.Dropdown
    segment: gr.Button
    model: gr.Dropdown
    weight: gr.Slider
    threshold: gr.Slider
    opacity: gr.Slider
    result: gr.AnnotatedImage
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
    def outputs(self) -> list[Any]:
        """What an :class:`Outcome` changes, in the order of :func:`_changes`."""
        return [
            self.shown, self.result, self.status, self.areas, self.gallery, self.best_classes,
            self.branches, self.files,
        ]  # fmt: skip

    @property
    def inputs(self) -> list[Any]:
        """What :meth:`Handlers.segment` takes."""
        return [
            self.picture, self.class_names, self.model, self.weight, self.threshold, self.opacity,
            self.open_tab,
        ]  # fmt: skip


def build_page(handlers: Handlers, examples: Sequence[Example], queue_size: int) -> gr.Blocks:
    """The page.

    Args:
        handlers: of its events.
        examples: to try; may be empty.
        queue_size: how many requests may wait; more are turned away.
    """
    models = handlers.tasks.models
    with gr.Blocks(title="OVSeg", analytics_enabled=False, delete_cache=_DELETE_FILES) as page:
        gr.Markdown(
            f"# {TITLE}\nGive a picture and the names of what to look for: any words will do.",
            elem_id="head",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                left = _question(models.names, models.own_settings(models.names[0]))
            with gr.Column(scale=7, min_width=420):
                right = _answer()
        parts = _Parts(
            **left,
            **right,
            shown=gr.State(None),
            open_tab=gr.State(AREAS),
            best_classes=gr.State(None),
        )
        load_example = _examples(parts, examples) if examples else None
        gr.Markdown(
            f"OVSeg {__version__} · open-vocabulary semantic segmentation with mask-adapted CLIP",
            elem_id="foot",
        )
        _connect(parts, handlers, load_example)
    page.queue(max_size=queue_size, default_concurrency_limit=1)
    return page


def _question(models: list[str], own: Any) -> dict[str, Any]:
    """The left side: what to segment, and how."""
    picture = gr.Image(
        label="Picture", type="filepath", sources=["upload", "clipboard"], height=300,
        elem_id="picture",
    )  # fmt: skip
    class_names = gr.Textbox(
        label="Class names", lines=5, max_lines=12, elem_id="class-names",
        placeholder="flamingo\nblue sky\nsea | ocean | water",
        info=f"A class a line; synonyms after {SEPARATOR}. Shift + Enter segments.",
    )  # fmt: skip
    segment = gr.Button("Segment", variant="primary", elem_id="segment")
    with gr.Accordion("Settings", open=True):
        model = gr.Dropdown(
            models, value=models[0], label="Model", elem_id="model", visible=len(models) > 1
        )
        opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", elem_id="opacity")
        weight = gr.Slider(
            0, 1, _weight(own), step=0.05, label="Ensemble weight", elem_id="weight",
            interactive=own.ensemble_weight is not None,
            info="How much CLIP's view of the crops counts against MaskFormer's. "
            "0 has the published meaning: CLIP alone.",
        )  # fmt: skip
        # a slider for how readily pixels are left without a class belongs here, beside the
        # threshold: EncodedImage.segment has to take it, Task to carry it
        threshold = gr.Slider(
            0, 1, own.mask_threshold, step=0.05, label="Mask threshold", elem_id="threshold",
            info="Where a mask ends that is cropped for CLIP. CLIP looks at the crops again.",
        )  # fmt: skip
        built_in = gr.Dropdown(
            list(BUILT_IN_NAMES), value=None, label="Take the class names of a data set",
            elem_id="built-in",
        )  # fmt: skip
    return {
        "picture": picture, "class_names": class_names, "segment": segment, "model": model,
        "opacity": opacity, "weight": weight, "threshold": threshold, "built_in": built_in,
    }  # fmt: skip


def _answer() -> dict[str, Any]:
    """The right side: the segmentation, and tabs with more about it."""
    result = gr.AnnotatedImage(
        label="Segmentation: hover over a name to see its region", format="jpeg", elem_id="result",
        show_legend=True,
    )  # fmt: skip
    status = gr.Markdown(elem_id="status")
    with gr.Tabs():
        with gr.Tab("Areas", id=AREAS) as areas_tab:
            areas = gr.Dataframe(
                headers=AREA_HEADERS, interactive=False, show_label=False, elem_id="areas",
                max_height=360,
            )  # fmt: skip
        with gr.Tab("Proposals", id=PROPOSALS) as proposals_tab:
            gr.Markdown(
                "What the segmentation is made of. Choose a proposal to see what MaskFormer and "
                "CLIP take it for."
            )
            gallery = gr.Gallery(
                columns=5, height=330, object_fit="contain", show_label=False, format="jpeg",
                allow_preview=False, elem_id="proposals",
            )  # fmt: skip
            branches = gr.Dataframe(
                headers=BRANCH_HEADERS, interactive=False, show_label=False, elem_id="branches"
            )
        with gr.Tab("Downloads", id=FILES) as files_tab:
            gr.Markdown(
                "Overlay, label map (a pixel's value is its class's place in the list, from 0), "
                "JSON, and COCO instances with run-length encoded masks."
            )
            files = gr.File(
                file_count="multiple", interactive=False, show_label=False, elem_id="files"
            )
    tabs = {AREAS: areas_tab, PROPOSALS: proposals_tab, FILES: files_tab}
    return {
        "result": result, "status": status, "tabs": tabs, "areas": areas, "gallery": gallery,
        "branches": branches, "files": files,
    }  # fmt: skip


def _examples(parts: _Parts, examples: Sequence[Example]) -> Any:
    rows = [[str(example.picture), "\n".join(example.class_names)] for example in examples]
    shown = gr.Examples(
        rows, [parts.picture, parts.class_names], label="Examples", elem_id="examples",
        cache_examples=False, examples_per_page=12, api_visibility="private",
    )  # fmt: skip
    return shown.load_input_event


def _connect(parts: _Parts, handlers: Handlers, load_example: Any) -> None:
    segment = _shown(handlers.segment)
    everything: dict[str, Any] = {
        "inputs": parts.inputs, "outputs": parts.outputs, "preprocess": False, **_QUEUED
    }  # fmt: skip
    parts.segment.click(segment, **everything)
    parts.class_names.submit(segment, **everything)
    if load_example is not None:
        load_example.then(segment, **everything)
    parts.picture.upload(_nothing, outputs=parts.outputs, **_QUIET).then(
        _shown(handlers.upload), **everything
    )
    parts.picture.clear(_nothing, outputs=parts.outputs, **_QUIET)

    # what is shown follows the sliders; before there is anything, they are only moved
    again = {**everything, "inputs": [parts.shown, *parts.inputs], "show_progress": "hidden"}
    follow = _shown(functools.partial(_again, handlers))
    for slider in (parts.opacity, parts.weight, parts.threshold):
        slider.input(follow, trigger_mode="always_last", **again)
    parts.model.input(
        _own_settings(handlers), parts.model, [parts.weight, parts.threshold], **_QUEUED
    ).success(follow, **again)
    parts.built_in.input(_built_in_names, parts.built_in, parts.class_names, **_QUIET)

    for name, tab in parts.tabs.items():
        tab.select(functools.partial(str, name), outputs=parts.open_tab, **_QUIET).then(
            _shown(handlers.open_tab),
            [parts.shown, parts.open_tab],
            parts.outputs,
            preprocess=False,
            **_QUEUED,
        )
    parts.gallery.select(_best_classes, parts.best_classes, parts.branches, **_QUIET)


def _shown(handler: Callable[..., Outcome]) -> Callable[..., list[Any]]:
    """A handler whose outcome changes the page and whose errors are messages in it."""

    def called(*values: Any) -> list[Any]:
        try:
            outcome = handler(*values)
        except UserError as error:
            # a message may be HTML, and this one quotes what a visitor typed
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        except Exception as error:
            logger.exception("a request failed")
            raise gr.Error(
                "This did not work; the server's log says why.", print_exception=False
            ) from error
        if outcome.warning:
            gr.Warning(html.escape(outcome.warning))
        return _changes(outcome)

    return called


def _changes(outcome: Outcome) -> list[Any]:
    """The values of :attr:`_Parts.outputs`."""
    kept = gr.skip()
    result: Any = kept
    if outcome.regions is not None:
        regions = outcome.regions
        result = gr.AnnotatedImage((regions.image, regions.masks), color_map=regions.colours)
    fresh = outcome.regions is not None  # then what other tabs hold belongs to the one before
    emptied = None if fresh else kept
    cards = outcome.cards
    return [
        outcome.shown or kept,
        result,
        outcome.status or kept,
        emptied if outcome.areas is None else _coloured(outcome.areas, outcome.area_colours),
        emptied if cards is None else [(card.picture, card.caption) for card in cards],
        emptied if cards is None else [card.best for card in cards],
        emptied if cards is None else None,
        emptied if outcome.files is None else [str(path) for path in outcome.files],
    ]


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


def _own_settings(handlers: Handlers) -> Callable[[str], list[Any]]:
    def changed(model: str) -> list[Any]:
        try:
            own = handlers.tasks.models.own_settings(model)
        except UserError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        interactive = own.ensemble_weight is not None
        return [gr.Slider(value=_weight(own), interactive=interactive), own.mask_threshold]

    return changed


def _weight(own: Any) -> float:
    return 0.0 if own.ensemble_weight is None else own.ensemble_weight


def _built_in_names(name: str) -> str:
    words = read_vocabulary(name).words_of_class if name in BUILT_IN_NAMES else ()
    return "\n".join(f" {SEPARATOR} ".join(of_class) for of_class in words)


def _best_classes(cards: Any, event: gr.SelectData) -> Any:
    """The table of a chosen proposal."""
    return cards[event.index] if cards and event.index < len(cards) else None
