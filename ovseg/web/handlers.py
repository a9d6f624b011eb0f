"""What the page's events do. Values come from the page as they are, and nothing here is drawn.

Every handler returns an :class:`Outcome`; what cannot be used is a
:class:`~ovseg.errors.UserError`, which the page shows as a message.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovseg.errors import UserError
from ovseg.prediction import Prediction
from ovseg.web.tasks import Answer, Task, Tasks, Upload, class_names_of, looks_like_a_list
from ovseg.web.views import (
    ColouredRegions,
    ProposalCard,
    area_colours,
    area_rows,
    coloured_regions,
    proposal_cards,
    write_files,
)

#: the tabs below the image; only the one that is open is filled
AREAS, PROPOSALS, FILES = "areas", "proposals", "files"


@dataclass(frozen=True)
class Shown:
    """What a visitor sees at the moment, kept between events.

    Attributes:
        task: what was asked for.
        opacity: of the regions, 0..1.
    """

    task: Task
    opacity: float


@dataclass
class Outcome:
    """What an event changes on the page; None: it stays as it is."""

    shown: Shown | None = None
    regions: ColouredRegions | None = None
    status: str = ""
    warning: str = ""
    areas: list[list[str]] | None = None
    area_colours: list[str] = field(default_factory=list)
    cards: list[ProposalCard] | None = None
    files: list[Path] | None = None


class Handlers:
    """The events of the page."""

    def __init__(self, tasks: Tasks, files: Path) -> None:
        """
        Args:
            tasks: answers what is asked for.
            files: the folder for the files that visitors download.
        """
        self.tasks = tasks
        self.files = files

    def segment(
        self,
        image: Mapping[str, Any] | None,
        text: str,
        model: str,
        weight: float,
        threshold: float,
        reject: float,
        opacity: float,
        tab: str,
    ) -> Outcome:
        """Segment an image.

        Args:
            image: the upload, with its ``path`` and ``orig_name``.
            text: class names, a class a line.
            model: name of the model.
            weight, threshold, reject: see :meth:`ovseg.encoded_image.EncodedImage.segment`.
            opacity: of the regions, 0..1.
            tab: which is open.

        Raises:
            UserError: anything of this that cannot be used.
        """
        upload = upload_of(image)
        names = class_names_of(text)
        own = self.tasks.models.own_settings(model)
        # a model without CLIP ensemble takes no weight, wherever its slider stands; and where it
        # stands at the model's own, another one for unseen classes counts too
        share = None if own.ensemble_weight is None else _in_range("ensemble weight", weight)
        share = None if share == own.ensemble_weight else share
        task = Task(
            upload, model, names, share,
            mask_threshold=_in_range("mask threshold", threshold),
            reject=_in_range("reject", reject),
        )  # fmt: skip
        shown = Shown(task, _in_range("opacity", opacity))
        answer = self.tasks.answer(task)
        outcome = self.open_tab(shown, tab)
        outcome.shown = shown
        outcome.regions = coloured_regions(answer.prediction, opacity)
        outcome.status = _status(answer)
        if looks_like_a_list(names):
            outcome.warning = (
                f"'{names[0]}' is taken as one class: commas belong to a name. Type a class a line"
            )
        return outcome

    def upload(
        self, image: Mapping[str, Any] | None, text: str, model: str, *settings: Any
    ) -> Outcome:
        """Look at a new image: segment it if class names are there already, else encode it."""
        if text.strip():
            return self.segment(image, text, model, *settings)
        self.tasks.encode(upload_of(image), model)
        return Outcome(status="The image is encoded. Type class names, a class a line.")

    def open_tab(self, shown: Shown | None, tab: str) -> Outcome:
        """Fill a tab with what belongs to the segmentation that is shown."""
        if shown is None:
            return Outcome()
        if tab == PROPOSALS:
            return Outcome(cards=self._cards(shown.task))
        prediction = self.tasks.answer(shown.task).prediction
        if tab == FILES:
            return Outcome(files=self._files(shown, prediction))
        return Outcome(areas=area_rows(prediction), area_colours=area_colours(prediction))

    def _cards(self, task: Task) -> list[ProposalCard]:
        prediction = self.tasks.answer(task, proposals=True).prediction
        assert prediction.proposals is not None
        assert task.mask_threshold is not None
        return proposal_cards(
            prediction.proposals, prediction.image, prediction.class_names, task.mask_threshold
        )

    def _files(self, shown: Shown, prediction: Prediction) -> list[Path]:
        folder = Path(tempfile.mkdtemp(dir=self.files))
        task = shown.task
        about = {"file": task.image.name, "model": task.model, **task.settings}
        return write_files(prediction, folder, task.image.stem, shown.opacity, about)


def upload_of(image: Mapping[str, Any] | None) -> Upload:
    """The image of an upload.

    Raises:
        UserError: there is none.
    """
    if not image or not image.get("path"):
        raise UserError("no image; choose one, or take an example")
    path = str(image["path"])
    return Upload(path, Path(str(image.get("orig_name") or path)).name)


def _in_range(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{name} {value!r} must be a number in 0..1")
    return float(value)


def _status(answer: Answer) -> str:
    prediction = answer.prediction
    height, width = prediction.labels.shape
    found = sum(area > 0 for area in prediction.areas())
    steps = (("encoded", answer.encoding_seconds), ("segmented", answer.segmenting_seconds))
    # what was there already took no time
    times = ", ".join(f"{what} in {seconds:.2f} s" for what, seconds in steps if seconds > 0.005)
    parts = [
        f"{found} of {len(prediction.class_names)} classes found",
        f"{width} × {height} pixels",
    ]
    return " · ".join([*parts, times] if times else parts)
