"""The page: its parts and their places. What happens in it is in :mod:`ovseg.web.events`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ovseg import __version__
from ovseg.data.vocabulary import BUILT_IN_NAMES, SEPARATOR
from ovseg.web.events import ExampleImage, Parts, connect
from ovseg.web.handlers import AREAS, FILES, PROPOSALS, Handlers
from ovseg.web.models import OwnSettings
from ovseg.web.region_view import RegionView
from ovseg.web.views import AREA_HEADERS, BRANCH_HEADERS

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
_HEAD = """# OVSeg
Segment an image into whatever you can name: give the image, and a class name a line. Point at a
name below the segmentation to see its region."""
_FOOT = f"OVSeg {__version__} · open-vocabulary semantic segmentation with mask-adapted CLIP"
# files of visitors are deleted after two hours; looked after every ten minutes
_DELETE_FILES = (600, 7200)


def theme() -> gr.themes.Base:
    """Colours, and the fonts that the visitor's system has: none is fetched."""
    return gr.themes.Soft(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def build_page(handlers: Handlers, examples: Sequence[ExampleImage], queue_size: int) -> gr.Blocks:
    """The page.

    Args:
        handlers: of its events.
        examples: to try; may be empty.
        queue_size: how many requests may wait; more are turned away.
    """
    models = handlers.tasks.models
    own = models.own_settings(models.names[0])
    with gr.Blocks(
        title="OVSeg", analytics_enabled=False, delete_cache=_DELETE_FILES, fill_width=True
    ) as page:
        gr.Markdown(_HEAD, elem_id="head")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                question = {**_question(examples), **_settings(models.names, own)}
            with gr.Column(scale=7, min_width=420):
                answer = _answer()
        gr.Markdown(_FOOT, elem_id="foot")
        parts = Parts(
            **question,
            **answer,
            shown=gr.State(None),
            open_tab=gr.State(AREAS),
            best_classes=gr.State(None),
        )
        connect(parts, handlers, examples)
    page.queue(max_size=queue_size, default_concurrency_limit=1)
    return page


def _question(examples: Sequence[ExampleImage]) -> dict[str, Any]:
    """Image, class names and the button."""
    image = gr.Image(
        label="Image", type="filepath", sources=["upload", "clipboard"], height=280,
        elem_id="image",
    )  # fmt: skip
    _take_uploads_only(image)
    dataset = gr.Dataset(
        label="Examples", components=["image"], type="index", visible=bool(examples),
        samples=[[str(example.image)] for example in examples], elem_id="examples",
    )  # fmt: skip
    class_names = gr.Textbox(
        label="Class names", lines=5, max_lines=12, elem_id="class-names",
        placeholder="flamingo\nblue sky\nsea | ocean | water",
        info=f"A class a line; synonyms after {SEPARATOR}. Shift + Enter segments.",
    )  # fmt: skip
    segment = gr.Button("Segment", variant="primary", elem_id="segment")
    return {
        "image": image, "examples": dataset, "class_names": class_names, "segment": segment
    }  # fmt: skip


def _take_uploads_only(image: gr.Image) -> None:
    """Refuse web addresses, which Gradio would fetch for whoever sends one in place of a file."""
    keep = image.async_move_resource_to_block_cache

    async def keep_files(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("Upload the image; its address is not enough.", print_exception=False)
        return await keep(path)

    image.async_move_resource_to_block_cache = keep_files


def _settings(models: list[str], own: OwnSettings) -> dict[str, Any]:
    """How to segment, and how to show it."""
    with gr.Accordion("Settings", open=True, elem_id="settings"):
        model = gr.Dropdown(
            models, value=models[0], label="Model", elem_id="model", visible=len(models) > 1
        )
        opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", elem_id="opacity")
        weight = gr.Slider(
            0, 1, own.slider_weight, step=0.05, label="Ensemble weight", elem_id="weight",
            interactive=own.ensemble_weight is not None,
            info="How much CLIP's view of the crops counts against MaskFormer's; "
            "0 stands for CLIP alone, as in the published code.",
        )  # fmt: skip
        threshold = gr.Slider(
            0, 1, own.mask_threshold, step=0.05, label="Mask threshold", elem_id="threshold",
            info="Where the masks end that are cropped for CLIP. Moving it makes CLIP look again.",
        )  # fmt: skip
        reject = gr.Slider(
            0, 1, own.reject, step=0.01, label="Reject", elem_id="reject",
            info="How readily pixels that belong to none of the classes get none; 0: never. "
            "0.1 is a good start, 0.02 to 0.05 with a handful of class names.",
        )  # fmt: skip
        built_in = gr.Dropdown(
            list(BUILT_IN_NAMES), value=None, label="Class names of a data set",
            elem_id="built-in", info="Replace the class names by these.",
        )  # fmt: skip
    return {
        "model": model, "opacity": opacity, "weight": weight, "threshold": threshold,
        "reject": reject, "built_in": built_in,
    }  # fmt: skip


def _answer() -> dict[str, Any]:
    """The segmentation, and tabs with more about it."""
    result = RegionView(
        label="Segmentation", format="jpeg", height=560,
        show_legend=True, elem_id="result",
    )  # fmt: skip
    status = gr.Markdown(elem_id="status")
    with gr.Tabs():
        with gr.Tab("Areas", id=AREAS) as areas_tab:
            areas = gr.Dataframe(
                headers=AREA_HEADERS, interactive=False, show_label=False, max_height=360,
                elem_id="areas",
            )  # fmt: skip
        with gr.Tab("Proposals", id=PROPOSALS) as proposals_tab:
            gr.Markdown(
                "The masks that the segmentation is made of, the largest first. Choose one to see "
                "what MaskFormer and CLIP take it for."
            )
            gallery = gr.Gallery(
                columns=6, height=300, object_fit="contain", show_label=False, format="jpeg",
                allow_preview=False, elem_id="proposals",
            )  # fmt: skip
            branches = gr.Dataframe(
                headers=BRANCH_HEADERS, interactive=False, show_label=False, elem_id="branches"
            )
        with gr.Tab("Downloads", id=FILES) as files_tab:
            gr.Markdown(
                "The overlay; the label map, in which a pixel's value is its class's place in the "
                "list, from 0; a JSON with areas and scores; and COCO instances."
            )
            files = gr.File(
                file_count="multiple", interactive=False, show_label=False, elem_id="files"
            )
    return {
        "result": result, "status": status, "areas": areas, "gallery": gallery,
        "branches": branches, "files": files,
        "tabs": {AREAS: areas_tab, PROPOSALS: proposals_tab, FILES: files_tab},
    }  # fmt: skip
