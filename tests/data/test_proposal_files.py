"""Proposals as files: formats, what they do in the model, evaluation and demo, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from tiny_world import CONFIGS, tiny_opts, tiny_world

from ovseg.cli import search, segment, train
from ovseg import OVSeg, UserError
from ovseg.data.proposal_files import check_image_names, check_proposals, read_proposals, write_proposals
from ovseg.config import setup_cfg
from ovseg.engine.trainer import Trainer
from ovseg.structures import GivenProposals, Regions
from ovseg.vocabulary import Vocabulary

SWIN = str(CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml")
SAMPLE = CONFIGS.parent / "resources" / "samples" / "ball.jpg"
WORDS = ["wall", "sky", "traffic light"]

# upper left corner, lower row
MASKS = np.array(
    [
        [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]],
    ],
    dtype=bool,
)


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed code: lengths of runs down the columns, the first of zeros."""
    counts, value = [0], False
    for pixel in mask.T.flatten().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def compressed(mask: np.ndarray) -> dict:
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(n) for n in code["size"]], "counts": code["counts"].decode()}


@pytest.mark.parametrize("kind", ["bool", "uint8", "float", "counts", "compressed", "sam", "none"])
def test_formats(tmp_path, kind):
    if kind in {"bool", "uint8", "float"}:
        path = tmp_path / "a.npz"
        values = {"bool": MASKS, "uint8": 255 * MASKS.astype(np.uint8), "float": MASKS * 1.0}
        np.savez_compressed(path, masks=values[kind])
    else:
        path = tmp_path / "a.json"
        entries = {
            "counts": [run_lengths(mask) for mask in MASKS],
            "compressed": [compressed(mask) for mask in MASKS],
            "sam": [{"segmentation": compressed(mask), "area": 3} for mask in MASKS],
            "none": [],
        }
        path.write_text(json.dumps(entries[kind]))
    given = read_proposals(path, (6, 8))
    assert given.embeddings is None
    expected = MASKS if kind != "none" else np.zeros((0, 1, 1))
    np.testing.assert_array_equal(given.masks.numpy(), expected.astype(np.float32))


def test_compressed_codes_are_pycocotools_own(tmp_path):
    # long and short runs, rising and falling
    masks = np.zeros((4, 90, 700), bool)
    masks[0, :, 100:400] = masks[0, 3, 500:] = True
    masks[1] = np.random.default_rng(0).random((90, 700)) < 0.02
    masks[2] = True
    path = tmp_path / "a.json"
    path.write_text(json.dumps([compressed(mask) for mask in masks]))
    np.testing.assert_array_equal(read_proposals(path).masks.numpy(), masks)


def test_masks_without_pixels_are_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"size": [0, 0], "counts": []}]')
    with pytest.raises(UserError, match=r"a\.json: masks of 0 x 0 pixels"):
        read_proposals(path)


@pytest.fixture(scope="module")
def model(small_model) -> OVSeg:
    return small_model()


@pytest.fixture
def image(seeded) -> torch.Tensor:
    return seeded.image(64, 96, 1)


def test_own_proposals_written_and_read_give_the_same_segmentation(model, image, tmp_path):
    inputs = {"image": image, "class_names": WORDS, "output": "labels"}
    with torch.inference_mode():
        regions = model.propose([inputs])[0]
        write_proposals(tmp_path / "a.npz", regions)
        given = read_proposals(tmp_path / "a.npz", (64, 96))
        again, plain = model.propose([{**inputs, "proposals": given}, inputs])
        labels = [model([dict_])[0]["labels"] for dict_ in (inputs, {**inputs, "proposals": given})]
    assert (again.masks - regions.masks).abs().max() <= 0.5 / 255 + 1e-6
    torch.testing.assert_close(again.embeddings, regions.embeddings)
    torch.testing.assert_close(plain.masks, regions.masks)
    assert (labels[0] == labels[1]).float().mean() > 0.98
    # embeddings go with any words
    other = {**inputs, "class_names": ["dog", "cat"]}
    with torch.inference_mode():
        text = model.text(Vocabulary.of(other["class_names"]))
        direct, loaded = model.propose([other])[0], model.propose([{**other, "proposals": given}])
        expected, probs = (model.classify_queries(each, text) for each in (direct, loaded[0]))
    torch.testing.assert_close(probs, expected)


def test_faint_proposals_are_written_and_read(tmp_path):
    masks = torch.tensor([[[0.001, 0.004], [0.005, 0.0]]])
    write_proposals(tmp_path / "a.npz", Regions(torch.zeros(3, 2, 2), masks))
    found = read_proposals(tmp_path / "a.npz", (2, 2)).masks
    torch.testing.assert_close(found, torch.tensor([[[0.0, 1 / 255], [1 / 255, 0.0]]]))


def test_foreign_masks_are_classified_by_clip_alone(model, image):
    masks = torch.zeros(3, 32, 48)
    masks[0, :16] = masks[1, 16:] = 1  # the third is empty: not valid
    inputs = {"image": image, "class_names": WORDS, "output": "labels"}
    inputs["proposals"] = GivenProposals(masks)
    with torch.inference_mode():
        text = model.text(Vocabulary.of(WORDS))
        regions = model.encode([inputs])[0]
        assert model.classify_queries(regions, text) is None
        clip = model.classify_crops(regions.crops, text)
        assert clip.valid.tolist() == [True, True, False]
        for weight in (0.0, 0.3, 1.0):
            classified = model.combine(None, clip, weight)
            assert classified.queries.tolist() == [0, 1]
            torch.testing.assert_close(classified.class_probs, clip.class_probs)
        labels = model([inputs])[0]["labels"]
        best = clip.class_probs.argmax(dim=1)
        assert (labels[:30] == best[0]).all()
        assert (labels[34:] == best[1]).all()
        with pytest.raises(UserError, match="CLIP_ENSEMBLE True"):
            model.combine(None, None)
        nothing = {**inputs, "proposals": GivenProposals(masks[:0])}
        assert (model([nothing])[0]["labels"] == -1).all()
        wrong = GivenProposals(masks, torch.zeros(3, 5))
        with pytest.raises(UserError, match="have 5 numbers, this CLIP's text features 16"):
            model.propose([{**inputs, "proposals": wrong}])


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"masks": MASKS.astype(np.uint8)}, "save it as bool"),
        ({"masks": MASKS * 2.0}, "outside 0..1"),
        ({"masks": MASKS[0]}, r"shape \(3, 4\)"),
        ({"masks": MASKS, "embeddings": np.zeros((3, 8))}, "for 2 masks"),
        ({"mask": MASKS}, "it has no array masks"),
        ({"masks": MASKS.transpose(0, 2, 1)}, "masks of 3 x 4 pixels do not fit"),
        ({"masks": MASKS[:, :0, :0]}, "masks of 0 x 0 pixels show nothing"),
        ({"masks": MASKS, "embeddings": np.zeros((2, 5))}, "of 5 numbers, .* features have 8"),
        ({"masks": MASKS, "embeddings": np.full((2, 8), np.nan)}, "no finite numbers"),
        ({"masks": MASKS, "embeddings": np.full((2, 8), np.inf)}, "no finite numbers"),
    ],
)
def test_wrong_npz_is_named(tmp_path, arrays, expected):
    path = tmp_path / "photo.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=expected) as caught:
        read_proposals(path, (6, 8), text_dim=8)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "{}",
        "[1]",
        '[{"size": [3, 4]}]',
        '[{"size": [3, 4], "counts": "??"}, {"size": [1, 1]}]',
        # 5, 10 and 13 pixels for 12; a run of -1; half a pixel
        '[{"size": [3, 4], "counts": [2, 3]}]',
        '[{"size": [3, 4], "counts": "46"}]',
        '[{"size": [3, 4], "counts": [2, 11]}]',
        '[{"size": [3, 4], "counts": [14, -1, -1]}]',
        '[{"size": [3, 4], "counts": [1.5, 10.5]}]',
    ],
)
def test_wrong_json_is_named(tmp_path, text):
    path = tmp_path / "photo.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"photo\.json cannot be read"):
        read_proposals(path)


def test_broken_and_missing_files_are_named(tmp_path):
    for content in (b"", b"PK\x03\x04 cut off"):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.npz cannot be read"):
            read_proposals(tmp_path / "a.npz")
    check_proposals(tmp_path, ["x/a.jpg"])
    with pytest.raises(UserError, match=r"no proposals for x/b\.jpg.*\(1 more like this\)"):
        check_proposals(tmp_path, ["x/a.jpg", "x/b.jpg", "x/c.jpg"])
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(UserError, match="for the same image"):
        check_proposals(tmp_path, ["x/a.jpg"])
    with pytest.raises(UserError, match="does not exist"):
        check_proposals(tmp_path / "none", [])
    with pytest.raises(UserError, match="have one name"):
        check_image_names(["x/a.jpg", "y/a.png"])


@pytest.fixture(scope="module")
def opts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    root = tmp_path_factory.mktemp("world")
    with tiny_world(root, prefix="given") as clip:
        opts = tiny_opts(clip, MODEL__WEIGHTS=root / "model.pth", DATASETS__TEST="given_dev")
        torch.manual_seed(0)
        random = Trainer.build_model(setup_cfg(SWIN, opts))
        torch.save({"model": random.state_dict()}, root / "model.pth")
        yield opts


def miou(folder: Path) -> float:
    results = json.loads((folder / "inference" / "given_dev" / "results.json").read_text())
    value: float = results["percent"]["mIoU"]
    return value


def test_evaluation_and_search_of_other_proposals(opts, tmp_path, capsys):
    from ovseg.data.datasets import load_dataset

    evaluate = ["--eval-only", "--config-file", SWIN]
    own, truth = tmp_path / "own", tmp_path / "truth"
    train.main([*evaluate, "--save-proposals", str(own), *opts, "OUTPUT_DIR", f"{tmp_path}/a"])
    assert len(list((own / "given_dev").iterdir())) == 5
    train.main([*evaluate, "--load-proposals", str(own), *opts, "OUTPUT_DIR", f"{tmp_path}/b"])
    assert miou(tmp_path / "a") == pytest.approx(miou(tmp_path / "b"), abs=1.0)

    # the ground truth as masks: one is missing at first
    files = [Path(example["sem_seg_file_name"]) for example in load_dataset("given_dev")]
    truth.mkdir()
    arguments = ["--config-file", SWIN, "--load-proposals", str(truth), "--weights", "0,0.5"]
    arguments += ["--output", f"{tmp_path}/c", *opts]
    for file in files:
        with pytest.raises(SystemExit) as caught:
            search.main(arguments)
        assert caught.value.code == 2
        assert f"no proposals for {file.parents[2]}" in capsys.readouterr().err
        labels = np.asarray(Image.open(file))
        classes = np.unique(labels[labels < 255])
        np.savez_compressed(truth / f"{file.stem}.npz", masks=labels == classes[:, None, None])
    assert not (tmp_path / "c").exists()
    search.main(arguments)
    row = json.loads((tmp_path / "c" / "search.json").read_text())["data sets"]["given_dev"]
    # no embeddings: the weight has no effect
    assert row["mIoU"][0][0] == row["mIoU"][0][1]


def test_a_file_with_embeddings_of_another_clip_is_left_out(opts, tmp_path, capsys):
    from ovseg.data.datasets import load_dataset

    given = tmp_path / "given"
    given.mkdir()
    for index, example in enumerate(load_dataset("given_dev")):
        arrays = {"masks": np.ones((1, 6, 7), bool), "embeddings": np.ones((1, 5 if index else 16))}
        np.savez(given / f"{Path(example['file_name']).stem}.npz", **arrays)
    load = ["--load-proposals", str(given), *opts, "OUTPUT_DIR", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        train.main(["--eval-only", "--config-file", SWIN, *load])
    assert caught.value.code == 1
    results = tmp_path / "out" / "inference" / "given_dev" / "results.json"
    text = results.read_text()
    assert "000.npz" not in text
    for index in range(1, 5):
        assert f"{index:03d}.npz: embeddings of 5 numbers" in text


def test_options_that_do_not_go_together(opts, tmp_path, capsys):
    there = tmp_path / "there"
    there.mkdir()
    for options, expected in (
        (["--save-proposals", "x"], "--save-proposals 'x': add --eval-only"),
        (["--eval-only", "--save-proposals", "x", "--load-proposals", str(there)], "both set"),
        (["--eval-only", "--load-proposals", "gone"], "'gone' does not exist"),
    ):
        with pytest.raises(SystemExit) as caught:
            train.main(["--config-file", SWIN, *options, *opts])
        assert caught.value.code == 2
        assert expected in capsys.readouterr().err


def test_demo_with_masks_of_ones_own(tmp_path):
    with Image.open(SAMPLE) as picture:
        width, height = picture.size
    masks = np.zeros((1, height, width), bool)
    masks[0, : height // 2] = True
    np.savez_compressed(tmp_path / "ball.npz", masks=masks)
    common = ["--class-names", "grass", "soccer ball", "--input", str(SAMPLE), "--output"]
    load = ["--load-proposals", str(tmp_path), "--opts", "MODEL.DEVICE", "cpu"]
    segment.main([*common, str(tmp_path / "out"), *load])
    labels = np.asarray(Image.open(tmp_path / "out" / "ball_labels.png"))
    assert (labels[height // 2 + 20 :] == 255).all()
    assert len(np.unique(labels[: height // 2 - 20])) == 1
    save = ["--save-proposals", str(tmp_path / "own"), "--opts", "MODEL.DEVICE", "cpu"]
    segment.main([*common, str(tmp_path / "out"), *save])
    saved = read_proposals(tmp_path / "own" / "ball.npz", (height, width))
    assert saved.masks.shape[0] == 30
    assert saved.embeddings is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[[0, 0, 2, 0, 2, 2]]], "entry 1 is a polygon; proposals are run-length encodings"),
        ([{"segmentation": [[0, 0, 2, 0, 2, 2]]}], "entry 1 is a polygon; .* key coco_json"),
        ({"images": [], "annotations": [], "categories": []},
         "it is a COCO instances file; the key that reads it is coco_json"),
        ({"shapes": []}, "it is a labelme file of one image"),
    ],
)  # fmt: skip
def test_polygons_are_named_with_the_key_that_reads_them(
    tmp_path: Path, content: object, message: str
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_proposals(tmp_path / "a.json")
