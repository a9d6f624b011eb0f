"""Config files and overrides: what is accepted, and what a mistake is answered with."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tiny_world import CONFIGS

from ovseg.config import setup_cfg
from ovseg.config.quick import quick_cfg
from ovseg.config.reading import flatten
from ovseg.errors import UserError

R101 = CONFIGS / "ovseg_R101c_vitB_bs32_120k.yaml"


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_loads_and_is_frozen(config: Path) -> None:
    cfg = setup_cfg(config)
    assert cfg.is_frozen()


def test_configs_are_read_by_several_threads_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: setup_cfg(CONFIGS / "ovseg_tiny.yaml"), range(24)))
    assert all(cfg == found[0] for cfg in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('("ade20k_sem_seg_val",)', ("ade20k_sem_seg_val",)),
        ('("ade20k_sem_seg_val")', ("ade20k_sem_seg_val",)),
        ("ade20k_sem_seg_val", ("ade20k_sem_seg_val",)),
        ("one,two", ("one", "two")),
        ("()", ()),
    ],
)
def test_lists_of_data_sets(text: str, expected: tuple[str, ...]) -> None:
    cfg = setup_cfg(R101, ["DATASETS.TEST", text])
    assert expected == cfg.DATASETS.TEST


def test_a_whole_number_is_a_number() -> None:
    cfg = setup_cfg(R101, ["MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT", 0, "TEST.REJECT", 0])  # type: ignore[list-item]
    assert cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT == 0.0
    assert isinstance(cfg.TEST.REJECT, float)


def test_overrides_take_the_type_of_their_key() -> None:
    cfg = setup_cfg(
        R101,
        [
            *("SOLVER.BASE_LR", "1", "MODEL.WEIGHTS", "1234", "OUTPUT_DIR", "it's here"),
            *("MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD", "false", "INPUT.CROP.SIZE", "(64, 32)"),
        ],
    )
    assert isinstance(cfg.SOLVER.BASE_LR, float)
    assert cfg.MODEL.WEIGHTS == "1234"
    assert cfg.OUTPUT_DIR == "it's here"
    assert cfg.MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD is False
    assert list(cfg.INPUT.CROP.SIZE) == [64, 32]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ["MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGTH", "0.5"],
            r"unknown config key .*WEIGTH; did you mean MODEL\.CLIP_ADAPTER\.CLIP_ENSEMBLE_WEIGHT",
        ),
        (["CLIP_ENSEMBLE_WEIGHT", "0.5"], r"mean MODEL\.CLIP_ADAPTER\.CLIP_ENSEMBLE_WEIGHT or "),
        (["FOO.BAR", "1"], "unknown config key FOO.BAR"),
        (["MODEL", "1"], "config key MODEL is a group"),
        (["MODEL.WEIGHTS"], "MODEL.WEIGHTS has no value"),
        (["MODEL.WEIGHTS", "x", "--eval-only"], "'--eval-only' stands after KEY VALUE pairs"),
        (["MODEL.WEIGHTS=x"], "with a blank in place of '='"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER: 'many' is no value.*a whole number"),
        (["INPUT.CROP.SIZE", "7"], "INPUT.CROP.SIZE: '7' is no value for it; it needs a list"),
        (["MODEL.DEVICE", "gpu"], "MODEL.DEVICE: 'gpu' is no device"),
        (["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "()"], r"TEST\.AUG\.MIN_SIZES \(\)"),
        (["TEST.AUG.ENABLED", "True", "TEST.AUG.MAX_SIZE", "0"], r"TEST\.AUG\.MAX_SIZE 0"),
        (["TEST.SLIDING_TILE_SIZE", "0"], "TEST.SLIDING_TILE_SIZE 0 must be at least 1"),
        (
            ["TEST.SLIDING_WINDOW", "True", "MODEL.META_ARCHITECTURE", "OVSegDEMO"],
            "TEST.SLIDING_WINDOW True.*set MODEL.META_ARCHITECTURE OVSeg",
        ),
        (["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "('a',)"], r"MIN_SIZES \('a',\)"),
        (["INPUT.MIN_SIZE_TEST", "-5"], "INPUT.MIN_SIZE_TEST -5 must be at least 0"),
        (["INPUT.MAX_SIZE_TEST", "0"], "INPUT.MAX_SIZE_TEST 0 must be at least 1"),
        (["INPUT.RANDOM_FLIP", "diagonal"], "INPUT.RANDOM_FLIP 'diagonal' is unknown"),
        (["INPUT.CROP.TYPE", "foo"], "INPUT.CROP.TYPE 'foo' is unknown"),
        (["MODEL.DEVICE", "meta"], "MODEL.DEVICE: 'meta' is not supported; give cpu or cuda"),
        (["MODEL.META_ARCHITECTURE", "Foo"], "MODEL.META_ARCHITECTURE 'Foo' is not registered"),
        (["MODEL.BACKBONE.NAME", "Foo"], "MODEL.BACKBONE.NAME 'Foo' is not registered"),
        (
            ["MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD", "-0.1"],
            r"MODEL\.MASK_FORMER\.TEST\.OBJECT_MASK_THRESHOLD -0\.1 must lie in 0\.\.1",
        ),
        (["TEST.REJECT", "1.5"], r"TEST\.REJECT 1\.5 must lie in 0\.\.1"),
        (["TEST.REJECT", "much"], "TEST.REJECT: .much. is no value.*a number"),
        (
            ["MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD", "2"],
            r"MODEL\.MASK_FORMER\.TEST\.OVERLAP_THRESHOLD 2\.0 must lie in 0\.\.1",
        ),
        (["TEST.DETECTIONS_PER_IMAGE", "0"], "TEST.DETECTIONS_PER_IMAGE 0 must be at least 1"),
        (
            ["MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "True", "TEST.AUG.ENABLED", "True"],
            "PANOPTIC_ON True: segments are of one view of an image; set TEST.AUG.ENABLED and",
        ),
        (
            ["MODEL.MASK_FORMER.TEST.INSTANCE_ON", "True", "TEST.SLIDING_WINDOW", "True"],
            "INSTANCE_ON True: segments are of one view of an image",
        ),
        (["INPUT.FORMAT", "HSV"], "INPUT.FORMAT 'HSV' is unknown"),
    ],
)
def test_wrong_overrides_are_answered(opts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        setup_cfg(R101, opts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: gone.yaml\n", r"_BASE_ '.*gone\.yaml' does not exist"),
        ("MODEL: [\n", "not valid yaml"),
        ("MODEL:\n  CLIP_ADAPTOR:\n    X: 1\nVERSION: 2", r"key MODEL\.CLIP_ADAPTOR; did you mean"),
        ("SOLVER:\n  BASE_LR: abc\nVERSION: 2", r"SOLVER\.BASE_LR"),
        ("SOLVER: 3\nVERSION: 2", "for config key: SOLVER; correct the value"),
        ("hello", "holds no config"),
        ("", "holds no config"),
        ("OUTPUT_DIR: !!python/object/apply:os.getcwd []", "not valid yaml"),
    ],
)
def test_wrong_files_are_answered(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        setup_cfg(path)
    assert "wrong.yaml" in str(caught.value)


def test_a_dense_crf_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "published.yaml"
    path.write_text("TEST:\n  DENSE_CRF: False\nVERSION: 2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert setup_cfg(path).TEST.DENSE_CRF is False
    with pytest.raises(UserError, match=r"TEST\.DENSE_CRF True needs .*pip install pydensecrf2"):
        setup_cfg(path, ["TEST.DENSE_CRF", "True"])


def test_missing_file_is_answered() -> None:
    with pytest.raises(UserError, match=r"'nowhere\.yaml': no such file"):
        setup_cfg("nowhere.yaml")
    with pytest.raises(UserError, match="give --config-file"):
        setup_cfg("")


def test_cpu_is_chosen_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    cfg = setup_cfg(R101, ["SOLVER.AMP.ENABLED", "True"])
    assert cfg.MODEL.DEVICE == "cpu"
    assert not cfg.SOLVER.AMP.ENABLED
    assert [record.message for record in caplog.records] == [
        "No GPU found: MODEL.DEVICE is cpu.",
        "SOLVER.AMP.ENABLED needs a GPU: training in fp32.",
    ]
    caplog.clear()
    setup_cfg(R101, ["MODEL.DEVICE", "cpu"])
    assert not caplog.records


def test_gpu_is_kept_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert setup_cfg(R101).MODEL.DEVICE == "cuda"
    assert setup_cfg(R101, ["MODEL.DEVICE", "cuda:1"]).MODEL.DEVICE == "cuda:1"
    with pytest.raises(UserError, match="'cuda:2', but there are 2 GPUs"):
        setup_cfg(R101, ["MODEL.DEVICE", "cuda:2"])


def test_base_files_that_lead_nowhere(tmp_path: Path) -> None:
    circle, folder = tmp_path / "circle.yaml", tmp_path / "folder.yaml"
    circle.write_text("_BASE_: circle.yaml\n")
    folder.write_text("_BASE_: .\n")
    for file in (circle, folder):
        with pytest.raises(UserError, match=rf"{file.name}: its _BASE_ leads to no file"):
            setup_cfg(file)


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_read_without_detectron2_is_the_same(config: Path) -> None:
    opts = ["SOLVER.BASE_LR", "1", "DATASETS.TEST", "one,two", "OUTPUT_DIR", "1234"]
    opts += ["SOLVER.WARMUP_FACTOR", "1"]  # whose default is written as a quotient
    quick = quick_cfg(config, opts)
    assert quick is not None
    whole = dict(flatten(setup_cfg(config, opts)))
    read = dict(flatten(quick))
    assert read.keys() == whole.keys()
    # the device is chosen by what is there; the other one is no plain value in detectron2's source
    others = {"MODEL.DEVICE", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS"}
    plain = {key for key, value in read.items() if not isinstance(value, dict)} - others
    assert len(plain) > 200
    assert {key: read[key] for key in plain} == {key: whole[key] for key in plain}


def test_a_file_that_only_detectron2_can_read_is_left_to_it(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("MODEL: {WEIGHT: old.pkl}\n")  # of the keys' first version
    assert quick_cfg(file, []) is None
    assert setup_cfg(file).MODEL.WEIGHTS == "old.pkl"
    with pytest.raises(UserError, match="unknown config key NONE"):
        quick_cfg(file, ["NONE", "1"])


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("SOLVER.BASE_LR", "-0.1", "must be at least 0"),
        ("SOLVER.MAX_ITER", "0", "must be at least 1"),
        ("SOLVER.WARMUP_ITERS", "-1", "must be at least 0"),
        ("SOLVER.CHECKPOINT_PERIOD", "0", "must be at least 1"),
        ("SOLVER.IMS_PER_BATCH", "0", "must be at least 1"),
        ("TEST.EVAL_PERIOD", "-1", "must be at least 0"),
        ("SOLVER.WARMUP_METHOD", "cubic", "is unknown; choose from linear, constant"),
        ("SOLVER.LR_SCHEDULER_NAME", "Poly", "choose from WarmupPolyLR, WarmupMultiStepLR"),
        ("SOLVER.OPTIMIZER", "adam", "is unknown; choose from ADAMW, SGD"),
        ("SEED", "4294967296", "must be below 2147483648"),
        ("INPUT.MIN_SIZE_TRAIN", "()", "give lengths above 0"),
        ("INPUT.MIN_SIZE_TRAIN", "(64, 0)", "give lengths above 0"),
        ("INPUT.CROP.SIZE", "(0, 64)", "give lengths above 0"),
    ],
)
def test_settings_that_no_training_can_have(key: str, value: str, wanted: str) -> None:
    with pytest.raises(UserError) as caught:
        setup_cfg(R101, [key, value])
    assert str(caught.value).startswith(f"{key} ")
    assert wanted in str(caught.value)
