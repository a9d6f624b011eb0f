"""What a look at a data set has shown: table, warnings, and why no run with it can succeed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tabulate import tabulate

from ovseg.utils.counting import counted

# classes in a table
_LINES = 40


@dataclass
class DataReport:
    """What was found in a data set.

    Attributes:
        dataset: its name.
        class_names: of its C classes.
        ignored: the label of pixels that count nowhere.
        images: how many it has.
        checked: how many of them were looked at.
        pixels, occurrences: int64 (C,); pixels of each class, and images it occurs in.
        ignored_pixels: how many pixels count nowhere.
        unnamed: pixels of each value, colour or category that no class is named for.
        unreadable: a line for each file that is missing or broken.
        wrong: a line for each image whose ground truth does not fit image or classes.
        coloured: the label maps that are colour masks.
        advice: how files of this form are read; "" where they are of no known other form.
        way_out: what can be done where all is ignored.
    """

    dataset: str
    class_names: Sequence[str]
    ignored: int
    images: int
    checked: int
    pixels: np.ndarray
    occurrences: np.ndarray
    ignored_pixels: int = 0
    unnamed: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    coloured: list[str] = field(default_factory=list)
    advice: str = ""
    way_out: str = "choose another one"

    def table(self) -> str:
        """The classes, their pixels and images; long lists are cut."""
        order = np.argsort(-self.pixels, kind="stable")
        total = max(1, int(self.pixels.sum()) + self.ignored_pixels)
        rows: list[tuple[object, ...]] = [
            (self.class_names[i], int(self.pixels[i]), f"{100 * self.pixels[i] / total:.2f}",
             int(self.occurrences[i])) for i in order
        ]  # fmt: skip
        left = len(rows) - _LINES
        rows = rows[:_LINES]
        if left > 0:
            rows.append((f"... and {left} more", "", "", ""))
        rows.append(
            ("(ignored)", self.ignored_pixels, f"{100 * self.ignored_pixels / total:.2f}", "")
        )
        seen = (
            f"all {self.images}"
            if self.checked == self.images
            else (f"{self.checked} of {self.images} (--check-data: all)")
        )
        return f"Data set {self.dataset}, {seen} images:\n" + tabulate(
            rows, ("class", "pixels", "% of pixels", "images"), disable_numparse=True,
            colalign=("left", "right", "right", "right"),
        )  # fmt: skip

    def warnings(self) -> list[str]:
        """What may be a mistake, a line each."""
        lines = []
        for code, pixels in self.unnamed.most_common(10):
            lines.append(f"{code}: {pixels} pixels are ignored, since no class is named for it")
        if len(self.unnamed) > 10:
            lines.append(f"{len(self.unnamed) - 10} more values without a class are ignored")
        absent = [name for name, pixels in zip(self.class_names, self.pixels, strict=True)
                  if not pixels]  # fmt: skip
        if absent and self.checked == self.images:
            said = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
            lines.append(
                f"{len(absent)} of {len(self.class_names)} classes have not a single pixel: {said}"
                + (f"; {self.advice}" if self.advice else "")
            )
        elif self.advice and not self.wrong:
            lines.append(self.advice)
        if self.unreadable:
            lines.append(
                f"{counted(len(self.unreadable), 'file')} cannot be read: {self.unreadable[0]}"
            )
        if self.wrong:
            fit = counted(len(self.wrong), "label map", "does/do")
            lines.append(f"{fit} not fit: {self._wrong()}")
        return [f"data set {self.dataset}: {line}" for line in lines]

    def problem(self, training: bool, allowed: int = 0) -> str | None:
        """Why no run with this data can succeed; None if one can.

        Args:
            training: an evaluation leaves out what does not fit; a training meets it again and
                again, and it is easily put right before.
            allowed: how many images a training may lose.
        """
        usable = self.checked - len(self.wrong) - len(self.unreadable)
        start = f"data set {self.dataset}: "
        if self.wrong and (training or not usable):
            return (
                f"{start}{len(self.wrong)} of {self.checked} label maps do not fit: {self._wrong()}"
            )
        if len(self.unreadable) > allowed and training:
            return (
                f"{start}{counted(len(self.unreadable), 'file')} cannot be read, more than the "
                f"{allowed} that may be left out (config key DATALOADER.MAX_LOST): "
                f"{self.unreadable[0]}"
            )
        if not usable:
            return (
                f"{start}there is no ground truth, none of its files can be read: "
                f"{self.unreadable[0]}"
            )
        if not self.pixels.any():
            return (
                f"{start}there is no ground truth in its label maps, every pixel of "
                f"{counted(usable, 'image')} is ignored; {self.advice or self.way_out}"
            )
        return None

    def _wrong(self) -> str:
        return f"{self.wrong[0]}; {self.advice}" if self.advice else self.wrong[0]
