"""One pass over the data gives what separate evaluations give; choice, files and mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from PIL import Image
from processes import run_process
from tiny_world import CONFIGS, tiny_opts, tiny_world

from ovseg import OVSeg, UserError
from ovseg.cli import search, train
from ovseg.cli.number_lists import parse_values
from ovseg.config import setup_cfg
from ovseg.data.datasets import load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.engine.ensemble_search import GridCounter, search_dataset
from ovseg.engine.resumable import Counts, resumable_pass
from ovseg.engine.trainer import Trainer, load_model
from ovseg.evaluation import update_confusion
from ovseg.evaluation.ensemble_grid import Grid, GridScores, grid_scores, mean_scores
from ovseg.evaluation.ensemble_report import Search

SWIN = str(CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml")
ROOT = CONFIGS.parent
GRID = Grid((0.3, 0.5), (0.0, 0.35, 1.0))


@dataclass
class World:
    root: Path
    opts: list[str]
    cfg: CfgNode
    model: OVSeg


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two data sets, and a random model that is right about some pixels at some points."""
    root = tmp_path_factory.mktemp("world")
    with tiny_world(root, prefix="search") as clip:
        weights = root / "model.pth"
        overrides: dict[str, object] = {
            "MODEL__WEIGHTS": weights,
            "DATASETS__TEST": "search_dev,search_test",
            "OUTPUT_DIR": root / "output",
        }
        opts = tiny_opts(clip, **overrides)
        cfg = setup_cfg(SWIN, opts)
        torch.manual_seed(0)
        model = Trainer.build_model(cfg)
        mask_embed = model.sem_seg_head.predictor.mask_embed.layers[-1]
        torch.nn.init.normal_(mask_embed.weight, std=2.0)
        torch.save({"model": model.state_dict()}, weights)
        world = World(root, opts, cfg, load_model(cfg))
        for name in cfg.DATASETS.TEST:
            redraw_truth(world, name)
        yield world


def redraw_truth(world: World, name: str) -> None:
    """Make each label map what the model says at one of the points."""
    points = [(t, w) for t in GRID.thresholds for w in GRID.weights]
    with torch.inference_mode():
        for (threshold, weight), (example,) in zip(
            points, Trainer.build_test_loader(world.cfg, name), strict=False
        ):
            world.model.mask_threshold, world.model.clip_ensemble_weight = threshold, weight
            labels = world.model([example])[0]["labels"].numpy().astype(np.uint8)
            labels[:2] = 255
            Image.fromarray(labels).save(example["sem_seg_file_name"])


@pytest.fixture(scope="module")
def found(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, GridScores]:
    folder = tmp_path_factory.mktemp("unfinished")
    results = {}
    for name in world.cfg.DATASETS.TEST:
        result = search_dataset(world.cfg, world.model, name, GRID, 1, folder)
        assert result is not None
        results[name] = result
    return results


def evaluated(world: World, threshold: float, weight: float) -> dict[str, dict[str, float]]:
    """mIoU and the like of a separate evaluation, by data set."""
    world.model.mask_threshold, world.model.clip_ensemble_weight = threshold, weight
    results = Trainer.test(world.cfg, world.model)
    return {name: results[name]["sem_seg"] for name in world.cfg.DATASETS.TEST}


def test_every_point_is_that_of_a_separate_evaluation(world, found):
    for row, threshold in enumerate(GRID.thresholds):
        for column, weight in enumerate(GRID.weights):
            for name, percents in evaluated(world, threshold, weight).items():
                details = found[name].details
                assert found[name].reporting[row, column] == pytest.approx(
                    percents["mIoU"], abs=1e-4
                )  # percent: 1e-6 of mIoU
                for key in ("mIoU_detectron2", "pACC", "mIoU_seen", "mIoU_stuff"):
                    value = details[key][row][column]
                    value = np.nan if value is None else value
                    assert value == pytest.approx(percents[key], abs=1e-4, nan_ok=True)
    # the points differ, so that mixing them up would have been seen
    every = np.stack([result.reporting for result in found.values()])
    assert len(np.unique(every.round(6))) > 4


def test_two_weights_are_searched_in_the_same_pass(world):
    grid = Grid((0.3, 0.5), (0.2, 0.8), (0.0, 1.0))
    opts = ["DATASETS.TRAIN", "stickerscenes_train"]
    opts += ["MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN", "0.9"]
    model = load_model(setup_cfg(SWIN, [*world.opts, *opts]))
    assert model.unseen_weight == 0.9
    counter = GridCounter(model, "search_dev", grid)
    expected = np.zeros_like(counter.counts.arrays["confusion"][0])
    with torch.inference_mode():
        for place, (example,) in enumerate(Trainer.build_test_loader(world.cfg, "search_dev")):
            counter([{**example, "position": place}])
            truth = read_truth(example)
            for row, (threshold, unseen) in enumerate(grid.rows):
                for column, weight in enumerate(grid.weights):
                    model.mask_threshold, model.clip_ensemble_weight = threshold, weight
                    model.unseen_weight = unseen
                    labels = model([example])[0]["labels"].numpy()
                    update_confusion(expected[row, column], labels, truth, 255)
    np.testing.assert_array_equal(counter.counts.arrays["confusion"][0], expected)
    assert len(np.unique(expected.reshape(8, -1), axis=0)) > 4  # both weights matter


def test_two_weights_in_the_tables():
    grid = Grid((0.4,), (0.6, 0.7), (0.5, 0.9))
    results = results_of(a=([[10, 20], [40, 30]], [[10, 20], [40, 30]]))
    search = Search(grid, results, ["a"], False, {})
    assert search.document()["chosen"]["weight of unseen classes"] == 0.9
    assert search.document()["chosen"]["config"] == [
        "MODEL.CLIP_ADAPTER.MASK_THR 0.4",
        "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT 0.6",
        "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN 0.9",
    ]
    table = [line for line in search.text().split("\n") if "40.00" in line]
    assert [cell.strip() for cell in table[0].strip("|").split("|")] == [
        "0.4, 0.9", "40.00 *", "30.00"
    ]  # fmt: skip


def test_a_point_is_that_of_train_net(world, found, tmp_path):
    opts = [*world.opts, "OUTPUT_DIR", str(tmp_path)]
    opts += ["MODEL.CLIP_ADAPTER.MASK_THR", "0.3"]
    opts += ["MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT", "0.35"]
    train.main(["--eval-only", "--config-file", SWIN, *opts])
    results = json.loads((tmp_path / "inference" / "search_dev" / "results.json").read_text())
    assert found["search_dev"].reporting[0, 1] == pytest.approx(
        results["percent"]["mIoU"], abs=1e-4
    )


def test_halves_add_up_and_share_no_image(world, found, tmp_path):
    counter = GridCounter(world.model, "search_dev", GRID, halves=2)
    counts = resumable_pass(
        world.cfg, "search_dev", counter.counts, counter, folder=tmp_path, settings={"a": 1}
    )
    assert counts is not None
    first, second = counts.arrays["confusion"].sum(axis=(1, 2, 3, 4))
    labelled = 46 * 56  # of every tiny image
    assert (first / 6, second / 6) == (3 * labelled, 2 * labelled)
    whole = grid_scores(
        "x", counts.arrays["confusion"].sum(axis=0, keepdims=True), ["c"] * 186, {}, 5, []
    )
    np.testing.assert_allclose(whole.reporting, found["search_dev"].reporting)


class _Interrupted(Exception):
    pass


def test_interrupted_pass_goes_on(world, tmp_path):
    def counting(seen: list[int], stop_at: int | None) -> Counts | None:
        counts = Counts({"sum": np.zeros(1, np.int64)})

        def count(batch):
            for example in batch:
                if example["position"] == stop_at:
                    raise _Interrupted
                seen.append(example["position"])
                counts.arrays["sum"] += example["position"]
            return ["unlucky" if example["position"] == 1 else None for example in batch]

        return resumable_pass(
            world.cfg, "search_dev", counts, count,
            folder=tmp_path, settings={"a": setting}, save_every=0,
        )  # fmt: skip

    seen: list[int] = []
    setting = 1
    with pytest.raises(_Interrupted):
        counting(seen, stop_at=3)
    resumed = counting(seen, stop_at=None)
    assert seen == [0, 1, 2, 3, 4]
    assert resumed is not None
    assert resumed.arrays["sum"].tolist() == [10]
    assert resumed.images == 4
    assert resumed.failures == ["data set search_dev: unlucky"]
    # all done already: nothing is counted again
    again = counting(seen, stop_at=None)
    assert again is not None
    assert again.arrays["sum"].tolist() == [10]
    assert len(seen) == 5
    # of other settings: from the start
    setting = 2
    counting(seen, stop_at=None)
    assert seen[5:] == [0, 1, 2, 3, 4]


def script(world: World, output: Path, *command: str) -> dict:
    """Run the search in a process of its own; what search.json says."""
    opts = [*world.opts, "DATASETS.TEST", "stickerscenes_dev", "OUTPUT_DIR", str(output)]
    done = run_process(*command, *opts, DETECTRON2_DATASETS=str(world.root))
    assert done.returncode == 0, done.stderr
    assert "Best on stickerscenes_dev" in done.stdout
    document: dict = json.loads((output / "search.json").read_text())
    return document


def test_two_processes_of_torchrun_count_what_one_does(world, found, tmp_path):
    document = script(
        world, tmp_path,
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "tools/search_ensemble.py", "--config-file", SWIN, "--output", str(tmp_path),
        "--thresholds", "0.3,0.5", "--weights", "0,0.35,1",
    )  # fmt: skip
    result = document["data sets"]["stickerscenes_dev"]
    assert result["images"] == 5
    np.testing.assert_allclose(result["mIoU"], found["search_dev"].reporting, atol=1e-4)
    row, column = found["search_dev"].best()
    assert document["chosen"]["config"] == [
        f"MODEL.CLIP_ADAPTER.MASK_THR {GRID.thresholds[row]!r}",
        f"MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT {GRID.weights[column]!r}",
    ]
    for name in ("search.md", "heatmap_stickerscenes_dev.png"):
        assert (tmp_path / name).is_file()
    assert not (tmp_path / "unfinished").exists()


def test_published_script(world, tmp_path):
    weights = str(world.root / "model.pth")
    opts = [*world.opts, "DATASETS.TEST", "stickerscenes_dev"]
    copy = tmp_path / "tools"
    copy.mkdir()
    for name in ("configs", "tools/search_ensemble.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    # as its user does: the checkpoint's path is the only change
    published = (ROOT / "tools" / "search_thr_ensemble_w.sh").read_text()
    changed = published.replace("ckpt=ovseg_swinbase_vitL14_ft_mpt.pth", f"ckpt={weights}")
    assert changed != published
    (copy / "search_thr_ensemble_w.sh").write_text(changed)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    recorder = tmp_path / ".venv" / "bin" / "python"
    recorder.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" {" ".join(map(repr, opts))}\n')
    recorder.chmod(0o755)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = ("sh", "../tools/search_thr_ensemble_w.sh")
    done = run_process(*script, cwd=elsewhere, DETECTRON2_DATASETS=str(world.root))
    assert done.returncode == 0, done.stderr
    written = tmp_path / "output" / "search_thr_ensemble_w" / "search.json"
    document = json.loads(written.read_text())
    assert document["thresholds"] == [0.35, 0.4, 0.45]
    assert document["weights"] == [0.6, 0.65, 0.7, 0.75, 0.8]
    assert np.shape(document["data sets"]["stickerscenes_dev"]["mIoU"]) == (3, 5)


@pytest.mark.parametrize(
    ("given", "weights", "rest"),
    [
        ([], "ovseg_swinbase_vitL14_ft_mpt.pth", []),
        (["MODEL.DEVICE", "cpu"], "ovseg_swinbase_vitL14_ft_mpt.pth", ["MODEL.DEVICE", "cpu"]),
        (["Mine.pth", "SEED", "1"], "{cwd}/Mine.pth", ["SEED", "1"]),
        (["../gone.pth"], "../gone.pth", []),
        (["/MINE"], "/MINE", []),
    ],
)
def test_checkpoint_of_the_published_script(tmp_path, given, weights, rest):
    for name in ("tools", ".venv/bin", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "elsewhere" / "Mine.pth").touch()
    script = tmp_path / "tools" / "search_thr_ensemble_w.sh"
    script.write_text((ROOT / "tools" / script.name).read_text())
    recorder = tmp_path / ".venv" / "bin" / "python"
    recorder.write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$@"\n')
    recorder.chmod(0o755)
    cwd = tmp_path / "elsewhere"
    done = subprocess.run(
        ["sh", str(script), *given], cwd=cwd, capture_output=True, text=True, check=True
    )
    words = done.stdout.splitlines()
    assert words[:2] == [str(tmp_path), "tools/search_ensemble.py"]
    expected = ["MODEL.WEIGHTS", weights.format(cwd=cwd), "DATASETS.TEST", "ade20k_sem_seg_val"]
    assert words[words.index("MODEL.WEIGHTS") :] == [*expected, *rest]


def results_of(**grids: tuple[list[list[float]], list[list[float]]]) -> list[GridScores]:
    return [
        GridScores(name, np.array(choosing), np.array(reporting), {"left out": []})
        for name, (choosing, reporting) in grids.items()
    ]


def test_choice_and_report_on_different_images(tmp_path):
    grid = Grid((0.4,), (0.6, 0.7))
    results = results_of(a=([[10, 20]], [[30, 25]]), b=([[50, 39]], [[70, 60]]))
    # a alone prefers 0.7, the mean of both 0.6
    both = Search(grid, results, ["a", "b"], True, {})
    assert both.chosen == (0, 0)
    document = both.document()
    assert document["chosen"]["mIoU"] == {"a": 30, "b": 70}
    assert document["chosen"]["mean mIoU"] == 50
    assert document["data sets"]["a"]["best"]["weight"] == 0.7
    assert document["data sets"]["a"]["best"]["mIoU"] == 25  # not 30: chosen on the other half
    assert document["mean"]["mIoU"] == [[50, 42.5]]
    one = Search(grid, results, ["a"], False, {})
    assert one.chosen == (0, 1)
    assert one.document()["chosen"]["mIoU"] == {"b": 60}
    assert one.is_held_out
    assert not Search(grid, results, ["a", "b"], False, {}).is_held_out
    paths = both.write(tmp_path)
    assert [path.name for path in paths] == [
        "search.json", "search.md", "heatmap_a.png", "heatmap_b.png", "heatmap_mean.png"
    ]  # fmt: skip
    table = next(
        line for line in (tmp_path / "search.md").read_text().split("\n") if "25.00" in line
    )
    assert [cell.strip() for cell in table.strip("|").split("|")] == ["0.4", "30.00", "25.00 *"]


def test_mean_counts_every_data_set_the_same():
    mean = mean_scores(results_of(a=([[1, 2]], [[3, 4]]), b=([[5, 0]], [[9, 0]])))
    assert mean.choosing.tolist() == [[3, 1]]
    assert mean.reporting.tolist() == [[6, 2]]


def test_no_ground_truth_is_named():
    empty = np.zeros((1, 1, 2, 3, 4), np.int64)
    with pytest.raises(UserError, match="data set nothing: there is no ground truth"):
        grid_scores("nothing", empty, ["a", "b", "c"], {}, 0, [])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.35 0.4,0.45", (0.35, 0.4, 0.45)),
        ("0.6:0.8:0.05", (0.6, 0.65, 0.7, 0.75, 0.8)),
        ("1,0:0.2:0.1,0.1", (0.0, 0.1, 0.2, 1.0)),
        ("0:1:0.3", (0.0, 0.3, 0.6, 0.9)),
        ("0:1:0.3333334", (0.0, 0.3333334, 0.6666668, 1.0)),
    ],
)
def test_values(text, values):
    assert parse_values(text, "--weights") == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.2:0.1:0.1", "ends before it begins; give the smaller number first"),
        ("0:1:0", "has a step of 0; give one above 0"),
        ("0:1:-0.1", "has a step of -0.1; give one above 0"),
        ("nan", "is no number"),
        ("0:1", "is no number"),
        ("0:inf:0.1", "is no number"),
    ],
)
def test_wrong_values_are_told(text, message):
    with pytest.raises(UserError, match=f"--weights '{text}' {message}"):
        parse_values(text, "--weights")


def test_config_lines_are_the_points_themselves():
    grid = Grid(parse_values("0.3333333", ""), parse_values("0.1234567,0.1234568", ""))
    assert grid.config((0, 1)) == [
        "MODEL.CLIP_ADAPTER.MASK_THR 0.3333333",
        "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT 0.1234568",
    ]
    text = Search(grid, results_of(a=([[1, 2]], [[3, 4]])), ["a"], False, {}).text()
    assert "0.1234567 |" in text


@pytest.mark.parametrize("fault", ["ignored", "missing", "in one half"])
def test_a_data_set_without_ground_truth_is_named_before_any_work(world, tmp_path, capsys, fault):
    with tiny_world(tmp_path, prefix="unlabelled"):
        options = ["--held-out"] if fault == "in one half" else []
        for place, example in enumerate(load_dataset("unlabelled_dev")):
            if fault == "missing":
                # found, since it has the image's name, but not readable
                Path(example["sem_seg_file_name"]).write_bytes(b"")
            elif place % 2 or not options:
                nothing = np.full((48, 56), 255, np.uint8)
                Image.fromarray(nothing).save(example["sem_seg_file_name"])
        output = tmp_path / "results"
        argv = ["--config-file", SWIN, "--output", str(output), *options, *world.opts]
        with pytest.raises(SystemExit) as caught:
            search.main([*argv, "DATASETS.TEST", "search_dev,unlabelled_dev"])
    assert caught.value.code == 2
    assert "data set unlabelled_dev: there is no ground truth" in capsys.readouterr().err
    assert not output.exists()


def test_a_data_set_named_twice_counts_once(world, found, tmp_path):
    argv = ["--config-file", SWIN, "--output", str(tmp_path), "--thresholds", "0.3", "--weights"]
    argv += ["0.35", "--choose-on", "search_dev,search_dev", *world.opts]
    search.main([*argv, "DATASETS.TEST", "search_dev,search_dev"])
    document = json.loads((tmp_path / "search.json").read_text())
    assert document["chosen"]["on"] == list(document["data sets"]) == ["search_dev"]
    assert document["chosen"]["mean mIoU"] == pytest.approx(found["search_dev"].reporting[0, 1])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--weights", "0.5,1.2"], "--weights 1.2 is outside 0..1"),
        (["--thresholds=-0.1"], "--thresholds -0.1 is outside 0..1"),
        (["--weights", ""], "--weights is empty"),
        (["--weights", "0.5,high"], "--weights 'high' is no number"),
        (["--weights", "0.5:0.1:0.1"], "'0.5:0.1:0.1' ends before it begins"),
        (["--weights", "inf"], "'inf' is no number"),
        (["--weights", "1e400"], "'1e400' is no number"),
        (["--weights", "0:inf:0.1"], "'0:inf:0.1' is no number"),
        (["--weights", "0:nan:0.1"], "'0:nan:0.1' is no number"),
        (["--weights", "0:1:1e-7"], "'0:1:1e-7' makes over 1000 values"),
        (["--weights", "0:1:1e-320"], "'0:1:1e-320' makes over 1000 values"),
        (["--weights", "0:1:0.01", "--thresholds", "0:0.9:0.1"], "make 1010 points"),
        (["--num-gpus", "99"], "--num-gpus 99"),
        (["MODEL.WEIGHTS", "gone.pth"], "MODEL.WEIGHTS 'gone.pth': there is no such file"),
        (["--choose-on", "search_train"], "'search_train' is not among DATASETS.TEST"),
        (["--gird", "1"], "--gird"),
        (["MODEL.WEIGHTS", ""], "MODEL.WEIGHTS: empty"),
        (["DATASETS.TEST", "()"], "DATASETS.TEST: empty"),
        (["DATASETS.TEST", "coco_2017_val"], "coco_2017_val"),
        (["MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE", "False"], "has no weight to search"),
        (["TEST.AUG.ENABLED", "True"], "TEST.AUG.ENABLED True"),
        (["TEST.REJECT", "0.2"], "TEST.REJECT 0.2"),
    ],
)
def test_mistakes_are_answered_before_any_work(world, tmp_path, capsys, options, expected):
    output = tmp_path / "results"
    before = [part for part in options if options[0].startswith("--")]
    argv = ["--config-file", SWIN, "--output", str(output), *before, *world.opts]
    with pytest.raises(SystemExit) as caught:
        search.main(argv if before else [*argv, *options])
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert expected in said
    assert not output.exists()
