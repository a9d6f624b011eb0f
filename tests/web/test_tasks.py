"""Models are loaded once, images encoded once, and what visitors give is checked."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from web_samples import BALL, FLAMINGO

from ovseg.errors import UserError
from ovseg.predictor import Predictor
from ovseg.runtime import Predictor as Exported
from ovseg.web.models import Models, OwnSettings
from ovseg.web.tasks import (
    MOST_WORDS,
    Task,
    Tasks,
    Upload,
    class_names_of,
    looks_like_a_list,
    read_upload,
    reduced,
)

WORDS = ("flamingo", "forest", "gravel")


class Counting:
    """A predictor that counts how often it encodes."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.cfg = predictor.cfg
        self.encoded: list[tuple[int, ...]] = []

    def encode(self, image: np.ndarray):
        self.encoded.append(image.shape)
        return self.predictor.encode(image)


@pytest.fixture
def models(embedded: Predictor) -> Models:
    return Models({"tiny": lambda: embedded})


@pytest.fixture
def counting(embedded: Predictor) -> Counting:
    return Counting(embedded)


def tasks_of(counting: Counting, **options: int) -> Tasks:
    return Tasks(Models({"tiny": lambda: counting}), **options)  # type: ignore[dict-item,return-value]


def test_models_are_loaded_once_and_by_name() -> None:
    loaded: list[str] = []

    def loader(name: str):
        def load():
            loaded.append(name)
            time.sleep(0.01)
            return SimpleNamespace(name=name)

        return load

    models = Models({name: loader(name) for name in ("a", "b")})
    assert models.names == ["a", "b"]
    assert loaded == []
    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: (together.wait(), models.get("b"))[1], range(4)))
    assert loaded == ["b"]
    assert len({id(model) for model in found}) == 1
    with pytest.raises(UserError, match="model 'c': there is none; choose a, b"):
        models.get("c")


def test_a_model_that_cannot_be_loaded_is_tried_again() -> None:
    attempts = iter([UserError("no weights"), None])

    def load():
        if error := next(attempts):
            raise error
        return "model"

    models = Models({"a": load})  # type: ignore[dict-item]
    with pytest.raises(UserError, match="no weights"):
        models.get("a")
    assert models.get("a") == "model"


def test_own_settings_are_those_of_the_config(models: Models, embedded: Predictor) -> None:
    assert models.own_settings("tiny") == OwnSettings(0.65, 0.5, 0.0)
    cfg = embedded.cfg.clone()
    cfg.defrost()
    cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE = False
    without = Models({"a": lambda: SimpleNamespace(cfg=cfg)})  # type: ignore[dict-item,return-value]
    own = without.own_settings("a")
    assert (own.ensemble_weight, own.slider_weight) == (None, 0.0)


@pytest.mark.slow
def test_an_exported_model(exported: Path, models: Models) -> None:
    both = Models({"exported": lambda: Exported(exported), "tiny": lambda: models.get("tiny")})
    assert both.own_settings("exported") == both.own_settings("tiny")
    tasks = Tasks(both)
    found, expected = (
        tasks.answer(Task(Upload(str(BALL), "ball.jpg"), name, WORDS, 0.5, 0.4), proposals=True)
        for name in ("exported", "tiny")
    )
    assert (found.prediction.labels == expected.prediction.labels).mean() >= 0.999
    assert found.prediction.proposals is not None


def test_new_words_and_settings_reuse_the_encoded_picture(counting: Counting) -> None:
    tasks = tasks_of(counting)
    image = Upload(str(FLAMINGO), "flamingo.jpg")
    encoded = counting.predictor.encode(FLAMINGO)
    for names, weight, threshold in (
        (WORDS, None, None),
        (("gravel | pebbles", "sky"), None, None),
        (WORDS, 0.2, None),
        (WORDS, 0.2, 0.7),
    ):
        answer = tasks.answer(Task(image, "tiny", names, weight, threshold))
        expected = encoded.segment(list(names), ensemble_weight=weight, mask_threshold=threshold)
        np.testing.assert_array_equal(answer.prediction.labels, expected.labels)
        assert answer.prediction.proposals is None
    assert len(counting.encoded) == 1
    same = tasks.answer(Task(image, "tiny", WORDS, 0.2, 0.7))
    assert same.prediction is answer.prediction
    again = tasks.answer(Task(image, "tiny", WORDS), proposals=True).prediction
    assert again.proposals is not None
    assert len(counting.encoded) == 1


def test_so_many_pictures_stay_encoded(counting: Counting) -> None:
    tasks = tasks_of(counting, keep_encoded=1)
    first, second = (Task(Upload(str(path), path.name), "tiny", WORDS) for path in (BALL, FLAMINGO))
    for task in (first, second, second):
        tasks.encode(task.image, task.model)
    assert len(counting.encoded) == 2
    tasks.encode(first.image, first.model)
    assert len(counting.encoded) == 3


def test_large_pictures_are_reduced(counting: Counting, tmp_path: Path) -> None:
    Image.open(FLAMINGO).resize((300, 90)).save(tmp_path / "wide.png")
    tasks = tasks_of(counting, max_side=150)
    answer = tasks.answer(Task(Upload(str(tmp_path / "wide.png"), "wide.png"), "tiny", WORDS))
    assert counting.encoded == [(45, 150, 3)]
    assert answer.prediction.labels.shape == (45, 150)
    image = np.asarray(Image.open(FLAMINGO))
    assert reduced(image, 512) is image


def test_uploads_are_read_and_no_path_of_the_server_is_told(tmp_path: Path) -> None:
    secret = tmp_path / "secret-place"
    secret.mkdir()
    broken = secret / "photo.png"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"'photo\.png' cannot be read as an image") as raised:
        read_upload(Upload(str(broken), "photo.png"))
    assert "secret-place" not in str(raised.value)
    with pytest.raises(UserError, match=r"'gone\.png' does not exist") as raised:
        read_upload(Upload(str(secret / "gone.png"), "gone.png"))
    assert "secret-place" not in str(raised.value)
    np.testing.assert_array_equal(
        read_upload(Upload(str(BALL), "ball.jpg")), np.asarray(Image.open(BALL))
    )


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("photo.jpg", "photo"),
        ("../../etc/pass wd.png", "pass wd"),
        ("a$(b);c.png", "a__b__c"),
        (".png", "_png"),
        ("", "image"),
        ("ü" * 300 + ".png", "ü" * 80),
    ],
)
def test_names_of_results_are_safe(name: str, stem: str) -> None:
    assert Upload("x", name).stem == stem


def test_class_names_are_lines() -> None:
    text = "  flamingo \n\nsea |ocean\r\ndoor,  double door\n"
    assert class_names_of(text) == ("flamingo", "sea |ocean", "door, double door")
    assert not looks_like_a_list(class_names_of(text))
    assert looks_like_a_list(class_names_of("cat, dog, grass"))
    assert not looks_like_a_list(class_names_of("cat"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no class names"),
        (" \n \t\n", "no class names"),
        ("cat\nCat", "'Cat' is given twice"),
        ("cat\ndog |", "class name 2 of 2 is empty"),
        ("\n".join(f"w{n}" for n in range(MOST_WORDS + 1)), "1001 words are too many"),
        (" | ".join(f"w{n}" for n in range(MOST_WORDS + 1)), "1001 words are too many"),
        ("a" * 100_001, "100001 letters are too many"),
    ],
)
def test_class_names_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        class_names_of(text)
