"""The published implementation's answers, number by number."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import PARITY, load_config
from detectron2.modeling import build_model
from detectron2.structures import Instances

from ovseg import OVSeg
from ovseg.modeling.crops import cut_crops


@pytest.fixture(scope="module")
def build(seeded):
    """Builds the model of a case; equal ones once."""
    built: dict[str, OVSeg] = {}

    def make(made, *opts: str) -> OVSeg:
        opts = (*made["opts"], *opts)
        key = made["config"] + " ".join(opts)
        if key not in built:
            built.clear()  # one large model at a time
            built[key] = build_model(load_config(made["config"], *opts))
            seeded.fill(built[key])
        return built[key].eval()

    return make


def close(ours: torch.Tensor, theirs: object) -> None:
    torch.testing.assert_close(ours.float(), torch.as_tensor(theirs), rtol=1e-3, atol=1e-4)


def test_one_whole_image(build, seeded, parity):
    made, answers = parity("forward_R101c_vitB")
    model = build(made)
    image = seeded.image(made["h"], made["w"], made["seed"])
    size = {"height": made["out_h"], "width": made["out_w"]}
    inputs = {"image": image, "class_names": made["class_names"], **size}
    with torch.no_grad():
        proposals = model.sem_seg_head(model.backbone(model._normalised([inputs]).tensor))
        close(proposals.mask_logits[0, :, ::4, ::4], answers["pred_masks"])
        scores = model([inputs])[0]["sem_seg"]
        labels = model([{**inputs, "output": "labels"}])[0]["labels"]
    assert scores.shape == (len(made["class_names"]), made["out_h"], made["out_w"])
    close(scores[:, ::16, ::16], answers["sem_seg"])
    for ours in (scores.argmax(dim=0), labels):
        same = (ours[::4, ::4] == torch.as_tensor(answers["argmax"])).float().mean()
        assert same >= 0.999


@pytest.mark.parametrize("name", ["adapter_vitB", "adapter_vitB_noprompt"])
def test_clip_adapter_alone(build, seeded, parity, name):
    made, answers = parity(name)
    model = build(made)
    image = seeded.image(made["h"], made["w"], made["seed"])
    masks = seeded.masks(made["n_masks"], made["h"], made["w"], made["seed"] + 1)
    masks[2] = 0
    adapter = model.clip_adapter
    crops = cut_crops(
        image,
        masks,
        size=adapter.input_size,
        threshold=model.mask_threshold,
        fill=model.crop_encoder.fill_colour,
        expand_ratio=model.crop_encoder.expand_ratio,
    )
    with torch.no_grad():
        text = adapter.text_features(made["class_names"])
        logits = adapter.similarity(adapter.image_features(crops.images, crops.masks), text)
    assert crops.valid.tolist() == answers["valid"].tolist()
    close(text, answers["text_features"])
    close(logits, answers["clip_logits"])


def test_one_training_step(build, seeded, parity):
    made, _ = parity("losses_R101c")
    model = build(made, "MODEL.MASK_FORMER.DROPOUT", "0.0").train()
    batch = []
    for b in range(2):
        size = (made["h"], made["w"])
        masks = seeded.masks(4, *size, made["seed"] + 10 + b) > 0.5
        instances = Instances(size, gt_classes=torch.tensor(made["gt_classes"]), gt_masks=masks)
        image = seeded.image(*size, made["seed"] + b)
        batch.append({"image": image, "class_names": made["class_names"], "instances": instances})
    losses = model(batch)
    assert losses.keys() == made["losses"].keys()
    for name, value in made["losses"].items():
        close(losses[name], value)
    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    assert sum(p.requires_grad for p in parameters.values()) == made["n_trainable"]
    for name, norm in made["grad_norms"].items():
        gradient = parameters[name].grad
        assert gradient is not None
        torch.testing.assert_close(gradient.norm(), torch.tensor(norm), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "config", ["ovseg_R101c_vitB_bs32_120k.yaml", "ovseg_swinB_vitL_bs32_120k.yaml"]
)
def test_state_dict_has_the_keys_of_the_released_checkpoint(config):
    manifest = json.loads((PARITY / f"checkpoint_manifest_{config[:-5]}.json").read_text())
    with torch.device("meta"):  # shapes alone: nothing is allocated
        model = build_model(load_config(config, "MODEL.DEVICE", "meta"))
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == manifest
