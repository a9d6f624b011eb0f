"""What ``ovseg export`` writes: checked graphs of any size, smaller weights, whole folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import EXPORTED_WORDS, said

from ovseg import OVSeg, Predictor, UserError
from ovseg.cli import export
from ovseg.engine.test_time import plain_model
from ovseg.export.graphs import ProposalGraph, proposal_graph, region_graph, text_graph
from ovseg.export.onnx_files import OPSET, save_onnx, with_precision
from ovseg.export.write import ExportOptions, _whole_folder, export_model
from ovseg.runtime.folder import MANIFEST

GRAPHS = ("proposals", "regions", "text")


def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def inputs_of(model: OVSeg, name: str) -> dict[str, torch.Tensor]:
    """Three examples of another size than those that were traced."""
    torch.manual_seed(0)
    if name == "proposals":
        return {"images": 255 * torch.rand(3, 3, 96, 160)}
    if name == "regions":
        return {"crops": 255 * torch.rand(3, 3, *model.clip_adapter.input_size)}
    return {"tokens": torch.tensor([[49406, 320, 1125, 49407, 0], [49406, 1125, 320, 539, 49407],
                                    [49406, 49407, 0, 0, 0]])}  # fmt: skip


def test_files_and_manifest(exported: Path) -> None:
    manifest = json.loads((exported / MANIFEST).read_text())
    files = {path.name for path in exported.iterdir()} - {MANIFEST}
    assert files == set(manifest["files"])
    assert {f"{name}.onnx" for name in GRAPHS} | {f"{name}.pt2" for name in GRAPHS} <= files
    for name, about in manifest["files"].items():
        content = (exported / name).read_bytes()
        assert about == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["text"]["class_names"] == [[word] for word in EXPORTED_WORDS]
    assert manifest["text"]["shown_names"] == list(EXPORTED_WORDS)
    assert manifest["image"]["short_side"] == 160
    assert manifest["crops"]["mask_threshold"] == 0.5
    assert manifest["classification"]["ensemble_weight"] == 0.65


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_have_any_size(exported: Path, name: str) -> None:
    model = onnx.load(str(exported / f"{name}.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    named = {
        dimension.dim_param
        for value in model.graph.input
        for dimension in value.type.tensor_type.shape.dim
        if dimension.dim_param
    }
    expected = {"proposals": {"batch", "rows", "columns"}, "regions": {"regions"}}
    assert named == expected.get(name, {"texts", "length"})
    operators = {node.op_type for node in model.graph.node}
    assert not {"CumSum", "If", "Loop", "Scan"} & operators  # which some runtimes lack


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("kind", ["onnx", "pt2", "openvino"])
def test_graphs_compute_what_the_model_does(
    embedded: Predictor, exported: Path, name: str, kind: str
) -> None:
    model = plain_model(embedded.model)
    graph = {"proposals": proposal_graph, "regions": region_graph, "text": text_graph}[name](model)
    assert graph is not None
    inputs = inputs_of(model, name)
    with torch.no_grad():
        expected: Any = graph.module(*inputs.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    if kind == "onnx":
        found = run(exported / f"{name}.onnx", **{k: v.numpy() for k, v in inputs.items()})
    elif kind == "pt2":
        program = torch.export.load(exported / f"{name}.pt2").module()
        found = program(*inputs.values())
        found = [
            each.detach().numpy() for each in (found if isinstance(found, tuple) else (found,))
        ]
    else:
        openvino = pytest.importorskip("openvino", reason="no openvino: pip install openvino")
        options = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors are given bfloat16
        compiled = openvino.compile_model(str(exported / f"{name}.onnx"), "CPU", options)
        found = list(compiled([each.numpy() for each in inputs.values()]).values())
    for given, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(given, wanted.numpy(), atol=1e-3)


def test_the_text_graph_is_the_text_encoder(embedded: Predictor, exported: Path) -> None:
    tokens = inputs_of(embedded.model, "text")["tokens"]
    clip = plain_model(embedded.model).clip_adapter.clip_model
    padded = torch.nn.functional.pad(tokens, (0, clip.context_length - tokens.shape[1]))
    with torch.no_grad():
        expected = clip.encode_text(padded)
    (found,) = run(exported / "text.onnx", tokens=tokens.numpy())
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(("precision", "size"), [("fp16", 0.55), ("int8", 0.35)])
def test_smaller_weights(
    embedded: Predictor, exported: Path, tmp_path: Path, precision: str, size: float
) -> None:
    path = tmp_path / "regions.onnx"
    whole = exported / "regions.onnx"
    save_onnx(with_precision(onnx.load(str(whole)), precision), path)
    assert path.stat().st_size < size * whole.stat().st_size
    crops = inputs_of(plain_model(embedded.model), "regions")["crops"].numpy()
    (expected,), (found,) = run(whole, crops=crops), run(path, crops=crops)
    cosine = (expected * found).sum(1) / np.linalg.norm(expected, axis=1)
    cosine /= np.linalg.norm(found, axis=1)
    # the embedded weights are in half precision already
    assert (cosine > (0.99999 if precision == "fp16" else 0.95)).all()


@pytest.mark.parametrize("size", [(64, 96), (160, 128)])
def test_swin_stages_that_gather_their_windows(small_model: Any, size: tuple[int, int]) -> None:
    model = small_model()
    for name, parameter in model.named_parameters():
        if "bias_table" in name:
            torch.nn.init.normal_(parameter)
    images = 255 * torch.rand(2, 3, *size)
    with torch.no_grad():
        found = ProposalGraph(model)(images)
        features = model.backbone((images - model.pixel_mean) / model.pixel_std)
        expected = model.sem_seg_head(features)
    torch.testing.assert_close(found, (expected.mask_logits, expected.embeddings))


def test_folders_of_others_stay(embedded: Predictor, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(UserError, match="exists and is no earlier export; give a new folder"):
        export_model(embedded.cfg, plain_model(embedded.model), tmp_path / "photos")
    assert [path.name for path in tmp_path.rglob("*")] == ["photos", "a.jpg"]


def test_an_export_that_cannot_take_its_place_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    with _whole_folder(target) as folder:
        (folder / MANIFEST).write_text('{"format": "ovseg-export"}')
    rename = Path.rename

    def fails(self: Path, other: Path) -> Path:
        if other == target and not self.name.endswith("-old"):
            raise OSError(28, "No space left on device")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="No space left"), _whole_folder(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", MANIFEST]


def test_an_interrupted_export_leaves_nothing(
    embedded: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ovseg.export.write._write_graph", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_model(embedded.cfg, plain_model(embedded.model), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TEST.AUG.ENABLED", True], "TEST.AUG.ENABLED True is no part of the networks"),
        (["TEST.SLIDING_WINDOW", True], "TEST.SLIDING_WINDOW True is no part of the networks"),
        (["MODEL.PRECISION", "bf16"], "MODEL.PRECISION bf16 is how PyTorch computes"),
        (["MODEL.CLIP_ADAPTER.REGION_ENCODER", "both"], "REGION_ENCODER both with CROPS all"),
        (["MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN", 0.5], "UNSEEN 0.5 is not part of an"),
        (["MODEL.CLIP_ADAPTER.BEST_TEMPLATES", "a.json"], "set it to ''"),
        (["MODEL.CLIP_ADAPTER.TEMPLATE_MAP", "a.pt"], "TEMPLATE_MAP 'a.pt' is not part of an"),
        (["MODEL.CLIP_ADAPTER.BACKGROUND", "drop"], "BACKGROUND 'drop' is not part of an export"),
        (["TEST.MIN_CLASS_AREA", 0.1], "TEST.MIN_CLASS_AREA 0.1 is not part of an export"),
    ],
)
def test_configs_that_cannot_be_exported(
    embedded: Predictor, tmp_path: Path, opts: list[Any], message: str
) -> None:
    cfg = embedded.cfg.clone()
    cfg.merge_from_list(opts)
    with pytest.raises(UserError, match=message):
        export_model(cfg, plain_model(embedded.model), tmp_path / "new")


def test_unknown_precision(embedded: Predictor, tmp_path: Path) -> None:
    options = ExportOptions("int4")
    with pytest.raises(UserError, match="--precision 'int4' must be one of fp32, fp16, int8"):
        export_model(embedded.cfg, plain_model(embedded.model), tmp_path / "new", options)


def test_wrong_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--precision", "int4"], "invalid choice: 'int4'"),
        (
            ["--model", "tiny", "--config-file", "x.yaml"],
            "--model and --config-file are both given",
        ),
        (["--config-file", "configs/ovseg_tiny.yaml"], "MODEL.WEIGHTS is empty"),
        # traced on the CPU, whatever the config says
        (
            ["--config-file", "configs/ovseg_tiny.yaml", "--opts", "MODEL.DEVICE", "cuda"],
            "MODEL.WEIGHTS is empty",
        ),
        (["--speed", "fast"], "unrecognized arguments: --speed"),
    ):
        with pytest.raises(SystemExit) as ended:
            export.main(["--output", str(tmp_path / "new"), *options])
        assert ended.value.code == 2
        (line,) = said(capsys)
        assert message in line
    assert list(tmp_path.iterdir()) == []
