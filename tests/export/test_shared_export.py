"""A model whose CLIP sees the whole image once: its graph, and PyTorch's labels on onnxruntime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import EXPORTED_WORDS
from PIL import Image

from ovseg import Predictor
from ovseg.engine.test_time import plain_model
from ovseg.export.graphs import shared_graph
from ovseg.export.manifest import describe, describe_files
from ovseg.export.onnx_files import save_onnx, to_onnx
from ovseg.export.write import export_model
from ovseg.modeling.clip import RegionTokens
from ovseg.runtime import Predictor as Exported
from ovseg.runtime.folder import MANIFEST
from ovseg.runtime.shared_pass import shared_inputs
from ovseg.utils.package_files import package_folder

BALL = package_folder("resources") / "samples" / "ball.jpg"
WORDS = ["soccer ball", "teapot", "grass", "night sky"]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The embedded model with a shared pass of 96 pixels, whose queries differ from CLIP's."""
    opts = {"MODEL.DEVICE": "cpu", "INPUT.MIN_SIZE_TEST": 160}
    opts |= {"MODEL.CLIP_ADAPTER.REGION_ENCODER": "shared"}
    visual = plain_model(Predictor.from_pretrained("tiny", opts=opts).model).clip_adapter
    tokens = RegionTokens(visual.clip_model.visual, 1, "mask-queries")
    torch.manual_seed(0)
    changed = {k: v + 0.02 * torch.randn_like(v) for k, v in tokens.state_dict().items()}
    file = tmp_path_factory.mktemp("tokens") / "queries.pt"
    torch.save(changed, file)
    opts |= {
        "MODEL.CLIP_ADAPTER.SHARED_WEIGHTS": str(file),
        "MODEL.CLIP_ADAPTER.SHARED_FIRST_BLOCK": 1,
        "MODEL.CLIP_ADAPTER.SHARED_RESOLUTION": 96,
    }
    return Predictor.from_pretrained("tiny", opts=opts)


@pytest.fixture(scope="module")
def folder(predictor: Predictor, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's export with the shared graph in place of that of the crops, as
    ``ovseg export`` writes it; the other graphs are the same."""
    folder = tmp_path_factory.mktemp("shared") / "tiny"
    shutil.copytree(exported, folder, ignore=shutil.ignore_patterns("regions*", MANIFEST, "*.bin"))
    model = plain_model(predictor.model)
    graph = shared_graph(model.shared_pass)
    save_onnx(to_onnx(graph, graph.program()), folder / "shared.onnx")
    manifest = describe(predictor.cfg, model, "fp32", None, [])
    files = describe_files([path for path in folder.iterdir() if path.is_file()])
    (folder / MANIFEST).write_text(json.dumps({**manifest, "files": files}))
    return folder


@pytest.mark.parametrize("size", [(96, 96), (50, 133), (200, 70)])
def test_the_graph_gives_the_features_of_pytorch(
    folder: Path, predictor: Predictor, size: tuple[int, int]
) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (3, *size)).astype(np.float32)
    masks = random.uniform(size=(4, *size)) > np.array([0.3, 0.999, 0.99, 1])[:, None, None]
    pixels, covered, valid = shared_inputs(image, masks, 96, 8)
    assert valid.tolist() == [True, True, True, False]
    session = onnxruntime.InferenceSession(str(folder / "shared.onnx"))
    found = session.run(None, {"images": pixels[None], "covered": covered[None]})[0][0]
    shared_pass = plain_model(predictor.model).shared_pass
    with torch.inference_mode():
        expected = shared_pass(torch.tensor(image), torch.tensor(masks[valid]))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_it_is_written_in_place_of_the_graph_of_crops(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr("ovseg.export.write._write_graph", lambda *call: written.append(call[2]))
    export_model(predictor.cfg, plain_model(predictor.model), tmp_path / "new")
    assert set(written) == {"proposals", "text", "shared"}
    manifest = json.loads((tmp_path / "new" / MANIFEST).read_text())
    assert manifest["shared"] == {"short_side": 96, "patch": 8}


def test_labels_of_pytorch(folder: Path, predictor: Predictor) -> None:
    runtime = Exported(folder)
    for size in ((96, 96), (150, 90), (64, 200)):
        picture = np.asarray(Image.open(BALL).convert("RGB").resize(size))
        for words in (WORDS[:1], WORDS, EXPORTED_WORDS):
            found, expected = runtime(picture, words), predictor(picture, words)
            assert (found.labels == expected.labels).mean() >= 0.999
    encoded = runtime.encode(picture)
    assert encoded.segment(WORDS, mask_threshold=1.0).labels.shape == picture.shape[:2]
