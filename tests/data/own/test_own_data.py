"""The user's own data: what a yaml file may say, and what comes of it, from file to result."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from PIL import Image
from tiny_world import CONFIGS, tiny_opts, write_clip
from torch.multiprocessing import ProcessExitedException, spawn

from ovseg import Predictor
from ovseg.cli import segment, train
from ovseg.config import setup_cfg
from ovseg.data.own.image_files import ImageFiles
from ovseg.data.own.registration import dataset_vocabulary, register_custom
from ovseg.data.datasets import dataset_classes, load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.class_lists import load_class_list
from ovseg.data.mapper import TrainingMapper
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.trainer import Trainer
from ovseg.errors import UserError
from ovseg.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("forget_data_sets")

SWIN = CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml"
TINY = CONFIGS / "ovseg_tiny.yaml"
EMBEDDED = CONFIGS.parent / "resources" / "ovseg_tiny.pth"
SCENES = CONFIGS.parent / "tests" / "data" / "stickerscenes"
CLASSES = ["sky", ["boat", "ship", "ferry"], "sea", ["gull", "bird"]]
WORDS = ("sky", "boat", "ship", "ferry", "sea", "gull", "bird")
LABEL_OF_WORD = (0, 1, 1, 1, 2, 3, 3)
# names of the embedded model's world, and words that it takes for something else now and then
STUFF = {
    "grass": ["grass", "broccoli", "frog"],
    "brick wall": ["brick wall", "road"],
    "water": ["water", "blue sky", "dolphin"],
    "wood floor": ["wood floor"],
    "night sky": ["night sky", "snow"],
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.pt")


def write_data(
    folder: Path, dtype: type = np.uint8, ext: str = "png", count: int = 4, **changes: Any
) -> Path:
    """A harbour of ``count`` photographs; returns its yaml file."""
    rng = np.random.default_rng(5)
    for name in ("photos", "maps"):
        (folder / name).mkdir(parents=True)
    ignored = int(np.iinfo(dtype).max)
    for index in range(count):
        labels = rng.integers(0, len(CLASSES), (6, 8)).repeat(6, 0).repeat(6, 1).astype(dtype)
        labels[:3] = ignored
        image = np.stack([labels % 7 * 30, labels % 5 * 50, labels % 3 * 80], -1).astype(np.uint8)
        Image.fromarray(image).save(folder / f"photos/{index}.jpg")
        Image.fromarray(labels).save(folder / f"maps/{index}.{ext}")
    description: dict[str, Any] = {
        "name": "harbour",
        "images": "photos",
        "labels": "maps",
        "classes": CLASSES,
        "ignore_value": ignored,
        "label_ext": ext,
    }
    description.update(changes)
    file = folder / "harbour.yaml"
    kept = {key: value for key, value in description.items() if value is not None}
    file.write_text(yaml.safe_dump(kept), encoding="utf-8")
    return file


def write_scenes(folder: Path, count: int = 7, dtype: type = np.uint8) -> Path:
    """Scenes of the embedded model's world with labels of five kinds of stuff; its yaml file."""
    names = load_class_list("stickerscenes").names
    ignored = int(np.iinfo(dtype).max)
    table = np.full(256, ignored, dtype)
    table[[names.index(name) for name in STUFF]] = range(len(STUFF))
    for name in ("photos", "maps"):
        (folder / name).mkdir(parents=True)
    written = 0
    for path in sorted((SCENES / "annotations").iterdir()):
        labels = table[np.array(Image.open(path))]
        if written < count and len(np.unique(labels)) > 2:
            shutil.copy(SCENES / "images" / f"{path.stem}.jpg", folder / f"photos/{written}.jpg")
            Image.fromarray(labels).save(folder / f"maps/{written}.tif")
            written += 1
    assert written == count
    file = folder / "scenes.yaml"
    description = {
        "name": "scenes",
        "images": "photos",
        "labels": "maps",
        "label_ext": "tif",
        "ignore_value": ignored,
        "classes": list(STUFF.values()),
    }
    file.write_text(yaml.safe_dump(description))
    return file


def evaluation(file: Path, output: Path, *opts: str) -> list[str]:
    """The command that evaluates the embedded model on the data set of ``file``."""
    fixed = ["MODEL.WEIGHTS", str(EMBEDDED), "OUTPUT_DIR", str(output), "MODEL.DEVICE", "cpu"]
    fixed += ["DATALOADER.NUM_WORKERS", "0"]
    dataset = ["--dataset", str(file)]
    return ["--eval-only", "--config-file", str(TINY), *dataset, *fixed, *opts]


def command(clip: Path, output: Path, *options: str, **overrides: object) -> list[str]:
    opts = tiny_opts(clip, **({"OUTPUT_DIR": output, "DATASETS__TRAIN": "()"} | overrides))
    # what --dataset stands for must not be taken back by the keys
    return [*options, "--config-file", str(SWIN), *_without(opts, "DATASETS.TRAIN")]


def _without(opts: list[str], key: str) -> list[str]:
    place = opts.index(key)
    return opts[:place] + opts[place + 2 :]


@pytest.mark.parametrize(
    ("dtype", "ext"),
    [(np.uint8, "png"), (np.uint16, "png"), (np.uint8, "tif"), (np.uint16, "tif")],
)
def test_label_maps_of_8_and_16_bit(tmp_path: Path, dtype: type, ext: str) -> None:
    file = write_data(tmp_path, dtype, ext)
    assert register_custom([file]) == ["harbour"]
    examples = load_dataset("harbour")
    assert [Path(example["file_name"]).name for example in examples] == [
        f"{index}.jpg" for index in range(4)
    ]
    for example in examples:
        with Image.open(example["sem_seg_file_name"]) as stored:
            np.testing.assert_array_equal(read_truth(example), np.array(stored))
    assert MetadataCatalog.get("harbour").ignore_label == np.iinfo(dtype).max


def test_words_are_names_and_synonyms(tmp_path: Path) -> None:
    register_custom([write_data(tmp_path / "a")])
    assert dataset_classes(["harbour"]) == ["sky", "boat", "sea", "gull"]
    vocabulary = dataset_vocabulary("harbour")
    assert vocabulary.names == ("sky", "boat", "sea", "gull")
    assert vocabulary.words == WORDS
    assert vocabulary.class_of_word == LABEL_OF_WORD
    register_custom([write_data(tmp_path / "b", name="plain", classes=["sky", "sea"])])
    assert dataset_vocabulary("plain").words == ("sky", "sea")
    assert dataset_vocabulary("plain").class_of_word == (0, 1)
    # one class alone would be everywhere
    register_custom([write_data(tmp_path / "c", name="single", classes=[["boat", "ship"]])])
    assert dataset_vocabulary("single").words == ("boat", "ship", "others")
    assert dataset_vocabulary("single").class_of_word == (0, 0, -1)


@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_mapping_names_classes_by_words_that_are_not_searched(
    tmp_path: Path, in_a_file: bool
) -> None:
    classes: Any = {"above": "sky", "vessel": ["boat", "ship"]}
    if in_a_file:
        (tmp_path / "words.json").write_text(json.dumps(classes))
        classes = "../words.json"
    register_custom([write_data(tmp_path / "a", classes=classes)])
    assert dataset_classes(["harbour"]) == ["above", "vessel"]
    vocabulary = dataset_vocabulary("harbour")
    assert vocabulary.names == ("above", "vessel")
    assert vocabulary.words_of_class == (("sky",), ("boat", "ship"))
    # a training learns a word that is searched for
    cfg = setup_cfg(CONFIGS / "ovseg_tiny.yaml")
    assert TrainingMapper(cfg, ["harbour"]).class_names == ["sky", "boat"]


def test_registering_again_takes_the_changed_file(tmp_path: Path) -> None:
    file = write_data(tmp_path)
    register_custom([file])
    file.write_text(file.read_text().replace("- sky", "- cloud"))
    register_custom([file])
    assert dataset_classes(["harbour"])[0] == "cloud"
    other = write_data(tmp_path / "other")
    with pytest.raises(UserError, match=r"harbour\.yaml: name 'harbour' is another data set's"):
        register_custom([other])


def test_coco_panoptic(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "panoptic").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "photos/7.jpg")
    ids = np.array([[5, 5, 70000], [0, 300, 300]])
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "panoptic/7.png")
    document: dict[str, Any] = {
        "categories": [{"id": 90, "name": "sky"}, {"id": 3, "name": "boat"}],
        "annotations": [
            {
                "image_id": 7,
                "file_name": "7.png",
                "segments_info": [
                    {"id": 5, "category_id": 3},
                    {"id": 300, "category_id": 90},
                    {"id": 70000, "category_id": 3},
                ],
            }
        ],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    file = tmp_path / "coco.yaml"
    text = "name: coco_like\nimages: photos\nlabels: panoptic\npanoptic_json: panoptic.json\n"
    file.write_text(text)
    register_custom([file])
    assert dataset_classes(["coco_like"]) == ["sky", "boat"]
    (example,) = load_dataset("coco_like")
    assert read_truth(example).tolist() == [[1, 1, 1], [255, 0, 0]]

    file.write_text(text + "classes: [[sky, heaven], boat]\n")
    register_custom([file])
    assert dataset_vocabulary("coco_like").words == ("sky", "heaven", "boat")
    file.write_text(text + "classes: [sky]\n")
    with pytest.raises(UserError, match=r"1 entries, the categories of .*panoptic\.json are 2"):
        register_custom([file])
    file.write_text(text)
    del document["annotations"][0]["segments_info"][2]
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    register_custom([file])
    with pytest.raises(UserError, match=r"7\.png: segment 70000 is not in its json"):
        read_truth(load_dataset("coco_like")[0])
    (tmp_path / "panoptic.json").write_text('{"images": []}')
    with pytest.raises(UserError, match=r"panoptic\.json is no COCO panoptic file"):
        register_custom([file])
    document["categories"][1]["id"] = 90
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"categories 'sky' and 'boat' have one id, 90"):
        register_custom([file])


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (None, r"annotations of .*panoptic\.json cannot be used"),
        ([None], "cannot be used"),
        ([], "has no annotations"),
        ([{"file_name": None, "segments_info": []}], "cannot be used"),
        ([{"file_name": "7.png", "segments_info": 3}], "cannot be used"),
        ([{"file_name": "7.png", "segments_info": [{"id": "x", "category_id": 1}]}], "'x'"),
        ([{"file_name": "7.png", "segments_info": [{"id": 1, "category_id": 2}]}], "lacks 2"),
        ([{"segments_info": []}], "lacks 'file_name'"),
        ([{"file_name": "7.png", "segments_info": []}], r"7\.jpg is missing"),
    ],
)
def test_odd_annotations_are_named(tmp_path: Path, annotations: Any, message: str) -> None:
    document = {"categories": [{"id": 1, "name": "sky"}], "annotations": annotations}
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    file = tmp_path / "odd.yaml"
    file.write_text("name: odd\nimages: .\nlabels: .\npanoptic_json: panoptic.json\n")
    register_custom([file])
    with pytest.raises(UserError, match=f"data set odd: .*{message}"):
        load_dataset("odd")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": []}, "classes is no list of words or empty"),
        ({"classes": None}, "key 'classes' is missing"),
        ({"classes": ["sky", "sea", " sky"]}, "'sky' stands for classes 1 and 3"),
        ({"classes": ["sky", ["sea", "sky"]]}, "'sky' stands for classes 1 and 2"),
        ({"classes": ["Dog", "dog"]}, "'dog' stands for classes 1 and 2"),
        ({"classes": ["hot dog", "hot  dog"]}, "'hot dog' stands for classes 1 and 2"),
        ({"classes": ["sky", []]}, "class 2 has no word"),
        ({"classes": ["sky", False]}, "class 2, False is no text; write it in quotes"),
        ({"images": None}, "key 'images' is missing"),
        ({"images": "pictures"}, r"images '.*pictures' does not exist"),
        ({"labels": "gone"}, r"labels '.*gone' does not exist"),
        ({"name": "../up"}, "may hold letters"),
        ({"name": "pascalvoc20_sem_seg_val"}, "is another data set's"),
        ({"imagse": "photos"}, "unknown key 'imagse'; did you mean images"),
        ({"ignore_value": 3}, "ignore_value 3 is the label of one of the 4 classes"),
        ({"ignore_value": "none"}, "ignore_value 'none' is no whole number"),
        ({"ignore_value": -1}, "ignore_value -1 is no whole number from 0 to 65535"),
        ({"panoptic_json": "photos/0.jpg"}, "remove label_ext"),
    ],
)
def test_mistakes_in_the_file_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = write_data(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as caught:
        register_custom([file])
    assert "harbour.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [", "not valid yaml"),
        ("name: a\nclasses: [sky]\nclasses: [sea]", "'classes' is there twice, line 3"),
        ("- sky", "describes no data set"),
        ("", "no data set"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"wrong\.yaml: .*{message}"):
        register_custom([file])
    with pytest.raises(UserError, match=r"'nowhere\.yaml' cannot be read"):
        register_custom(["nowhere.yaml"])


def test_folders_that_do_not_fit_are_named(tmp_path: Path) -> None:
    register_custom([write_data(tmp_path, image_ext="webp")])
    with pytest.raises(UserError, match=r"no \.webp files in .*photos \(there are 4 \.jpg\); correct .*harbour\.yaml"):
        load_dataset("harbour")
    register_custom([write_data(tmp_path / "b", name="shifted")])
    (tmp_path / "b/maps/0.png").rename(tmp_path / "b/maps/9.png")
    names = [Path(example["file_name"]).name for example in load_dataset("shifted", unpaired=True)]
    assert "0.jpg" not in names  # it has no label map
    assert "9.jpg" in names  # what its label map lacks will be named
    assert "9.jpg" not in [Path(e["file_name"]).name for e in load_dataset("shifted")]


def iou_by_hand(
    labels: list[np.ndarray], truths: list[np.ndarray], ignore: int
) -> dict[int, float]:
    """IoU of the classes in the truth, from sets of pixels."""
    said, true = (np.concatenate([part.ravel() for part in parts]) for parts in (labels, truths))
    said, true = said[true != ignore], true[true != ignore]
    return {
        int(c): float(((said == c) & (true == c)).sum() / ((said == c) | (true == c)).sum())
        for c in np.unique(true)
    }


def best_of_words(cfg: Any) -> list[np.ndarray]:
    """The classes of whole score maps, each class by the largest score of its words."""
    words = [word for names in STUFF.values() for word in names]
    assert dataset_vocabulary("scenes").words == tuple(words)
    model = Trainer.build_model(cfg).eval()
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(str(EMBEDDED))
    results = []
    for batch in Trainer.build_test_loader(cfg, "scenes"):
        inputs = [{**x, "output": "scores", "class_names": words} for x in batch]
        with torch.inference_mode():
            scores = model(inputs)[0]["sem_seg"]
        assert len(scores) == len(words)
        by_class = [scores[[words.index(w) for w in names]].amax(0) for names in STUFF.values()]
        results.append(torch.stack(by_class).argmax(0).numpy())
    return results


def test_evaluation_equals_a_computation_by_hand(tmp_path: Path) -> None:
    argv = evaluation(write_scenes(tmp_path / "data", 4, np.uint16), tmp_path / "out")
    train.main(argv)
    written = json.loads((tmp_path / "out/inference/scenes/results.json").read_text())
    truths = [np.array(Image.open(tmp_path / f"data/maps/{index}.tif")) for index in range(4)]
    assert truths[0].dtype == np.uint16
    labels = best_of_words(train.setup(train.build_parser().parse_args(argv)))
    expected = iou_by_hand(labels, truths, 65535)
    assert written["images"] == 4
    assert len(expected) > 2
    assert 0.3 < np.mean(list(expected.values())) < 1  # neither useless nor perfect
    for label, name in enumerate(STUFF):
        if label in expected:
            assert written["percent"][f"IoU-{name}"] == pytest.approx(100 * expected[label])
    mean = 100 * np.mean(list(expected.values()))
    assert written["percent"]["mIoU_detectron2"] == pytest.approx(mean)


def test_training_on_own_data(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_data(tmp_path / "my data", np.uint16, "tif")
    monkeypatch.chdir(tmp_path)
    own = str(file.relative_to(tmp_path))
    train.main(command(clip, tmp_path / "out", "--dataset", own))
    trained = tmp_path / "out/model_final.pth"
    assert trained.is_file()
    assert not (tmp_path / "out/inference").exists()
    written = tmp_path / "out/config.yaml"
    assert "IGNORE_VALUE: 65535" in written.read_text()

    # the model and its config serve elsewhere too
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    given = ["MODEL.WEIGHTS", str(trained), "DATASETS.TEST", "harbour", "OUTPUT_DIR", "evaluated"]
    train.main(["--eval-only", "--config-file", str(written), *given])
    assert Path("evaluated/inference/harbour/results.json").is_file()
    shutil.move(tmp_path / "my data", tmp_path / "moved")
    photo = str(next((tmp_path / "moved/photos").iterdir()))
    words = ["--class-names", "sea", "--input", photo, "--output", "found"]
    segment.main(["--model", str(trained), *words, "--save", "labels"])
    assert len(list(Path("found").rglob("*.png"))) == 1


def test_a_model_that_knows_its_classes_finds_them(clip: Path, tmp_path: Path) -> None:
    file = write_data(tmp_path, np.uint16, "tif")
    unseen = {"MODEL__CLIP_ADAPTER__CLIP_ENSEMBLE_WEIGHT_UNSEEN": 0.5}
    train.main(command(clip, tmp_path / "out", "--dataset", str(file), **unseen))
    DatasetCatalog.remove("harbour")
    MetadataCatalog.remove("harbour")
    predictor = Predictor.from_pretrained(tmp_path / "out/model_final.pth")
    vocabulary = Vocabulary.of([["ship"], ["sofa"]])
    assert predictor.model.seen_classes.of_words(vocabulary)[:2] == [True, False]


def _main_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        train.main(argv)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_keys_in_place_of_the_option(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_data(tmp_path / "my data", np.uint16, "tif")
    argv = command(clip, tmp_path, DATASETS__CUSTOM=file, DATASETS__TEST="harbour")
    cfg = train.setup(train.build_parser().parse_args(argv))
    assert (str(file),) == cfg.DATASETS.CUSTOM
    assert cfg.DATASETS.TEST == ("harbour",)
    argv += ["DATASETS.TRAIN", "harbour", "DATASETS.TEST", "()"]
    assert "give MODEL.SEM_SEG_HEAD.IGNORE_VALUE 65535" in _main_error(argv, capsys)
    both = command(clip, tmp_path, "--dataset", str(file), DATASETS__CUSTOM=file)
    assert "--dataset and DATASETS.CUSTOM are both given" in _main_error(both, capsys)
    gone = command(clip, tmp_path, "--dataset", "gone.yaml")
    assert "'gone.yaml' cannot be read" in _main_error(gone, capsys)


def _break_some(folder: Path) -> None:
    photo = folder / "photos/1.jpg"
    photo.write_bytes(photo.read_bytes()[:-200])
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(folder / "maps/2.tif")
    odd = np.array(Image.open(folder / "maps/4.tif"))
    odd[4, 4] = 77
    Image.fromarray(odd).save(folder / "maps/4.tif")


def _evaluate(rank: int, cfg: Any, args: Any, meeting: Path) -> None:
    """A process of two that evaluate together."""
    dist.init_process_group("gloo", f"file://{meeting}", world_size=2, rank=rank)
    comm._LOCAL_PROCESS_GROUP = dist.new_group([0, 1])
    train.run(cfg, args)


def _results(output: Path, name: str = "scenes") -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / f"inference/{name}/results.json").read_text())
    return document


def test_broken_files_are_left_out_by_one_process_and_by_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_scenes(tmp_path / "data")
    _break_some(tmp_path / "data")
    with pytest.raises(SystemExit) as caught:
        train.main(evaluation(file, tmp_path / "one", "TEST.VISUALIZE", "2"))
    assert caught.value.code == 1
    assert "error: 3 images were left out" in capsys.readouterr().err
    one = _results(tmp_path / "one")
    assert one["images"] == 4
    broken, other_size, unknown = one["failed"]
    assert "1.jpg' cannot be read" in broken
    assert "truncated" in broken
    assert re.search(r"2\.tif is 8 x 9 pixels, its image \d+ x \d+; correct it", other_size)
    assert "4.tif: ground truth holds label 77, outside the 5 classes" in unknown
    assert "not the ignored 255" in unknown
    assert "1.jpg" in (tmp_path / "one/inference/scenes/results.md").read_text()

    # the others' numbers are those of a data set without the broken files
    for index in (1, 2, 4):
        (tmp_path / f"data/photos/{index}.jpg").unlink()
        (tmp_path / f"data/maps/{index}.tif").unlink()
    train.main(evaluation(file, tmp_path / "sound"))
    assert _results(tmp_path / "sound")["percent"] == one["percent"]

    shutil.rmtree(tmp_path / "data")
    argv = evaluation(write_scenes(tmp_path / "data"), tmp_path / "two", "TEST.VISUALIZE", "2")
    _break_some(tmp_path / "data")
    args = train.build_parser().parse_args(argv)
    cfg = train.setup(args)
    with pytest.raises(ProcessExitedException) as ended:
        spawn(_evaluate, (cfg, args, tmp_path / "meeting"), nprocs=2)
    assert ended.value.exit_code == 1
    two = _results(tmp_path / "two")
    assert two["percent"] == one["percent"]
    assert two["images"] == 4
    assert sorted(two["failed"]) == sorted(one["failed"])
    pictures = [
        {path.name: path.read_bytes() for path in (tmp_path / run).glob("inference/*/pictures/*")}
        for run in ("one", "two")
    ]
    assert len(pictures[0]) == 4
    assert pictures[0] == pictures[1]


def test_a_list_may_have_one_name_in_several_folders(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").touch()
    (tmp_path / "a" / "2.jpg").touch()
    (tmp_path / "list.txt").write_text("a/1.jpg\nb/1.jpg\na/2.jpg\n")
    images = ImageFiles(tmp_path / "list.txt", "jpg", "look")
    assert images.find("a/1.jpg") == tmp_path / "a" / "1.jpg"
    assert images.find("b/1.jpg") == tmp_path / "b" / "1.jpg"
    assert images.find("elsewhere/2.jpg") == tmp_path / "a" / "2.jpg"
    assert not images.find("elsewhere/1.jpg").exists()
