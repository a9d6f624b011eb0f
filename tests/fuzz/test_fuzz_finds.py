"""What fuzzing has found, each as a test of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.config import setup_cfg
from ovseg.data.coco_masks import decode_rle
from ovseg.errors import UserError
from ovseg.modeling.segmentation import label_map
from ovseg.structures import PartialScores
from ovseg.utils.package_files import config_path


def test_run_lengths_need_no_size_of_their_own() -> None:
    np.testing.assert_array_equal(decode_rle({"counts": [1, 2, 1]}, 2, 2), [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    "counts",
    [
        "3" + "o" * 7 + "3" * 400,  # a number of more bits than a computer's
        "31P",  # ends within a number: what lies behind it in memory was read as well
        "0" * 40 + "P",
        "h0" * 30,
        "N1",  # below 0
        "31/",
        "3\u00e9",
        "",
    ],
)
def test_texts_of_run_lengths_stay_within_their_memory(counts: str) -> None:
    # some of them ended the process, when the memory that they had overwritten was used again
    with pytest.raises(ValueError, match="a code in it is n"):
        decode_rle({"counts": counts}, 4, 4)


def test_none_is_no_value_of_a_key() -> None:
    with pytest.raises(UserError, match=r"INPUT.MIN_SIZE_TEST: 'None' is no value for it"):
        setup_cfg(config_path("ovseg_tiny.yaml"), ["INPUT.MIN_SIZE_TEST", "None"])


def test_a_list_of_numbers_holds_nothing_else(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    for text in ("INPUT: {CROP: {SIZE: [null]}}", "SOLVER: {STEPS: ['9', 10]}"):
        config.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"(SIZE \[None\]|STEPS \['9', 10\]): give a list of n"):
            setup_cfg(config)


def test_nan_wins_no_pixel() -> None:
    probs = torch.tensor([[torch.nan, 0.5, 0.25]])
    labels, scores = label_map([PartialScores(probs, torch.ones(1, 1, 2))], (1, 2))
    assert labels.tolist() == [[1, 1]]
    assert scores.tolist() == [[0.5, 0.5]]
