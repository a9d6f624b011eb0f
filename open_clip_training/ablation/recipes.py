"""The runs of the ablation: how each CLIP is adapted, by which command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from open_clip_training.adaptation.options import FROZEN

#: mask prompts' depth where a row says nothing else
DEPTH = 3
#: what is trained apart from CLIP, and the key of ``MODEL.CLIP_ADAPTER`` that takes its file
OWN_FILES = {
    "mask-queries": "SHARED_WEIGHTS",
    "mask-bias": "SHARED_WEIGHTS",
    "text-prompts": "PROMPT_CHECKPOINT",
    "template-map": "TEMPLATE_MAP",
}


@dataclass(frozen=True)
class AdaptationRecipe:
    """How to adapt a CLIP.

    Attributes:
        name: of its folder.
        label: of its row.
        start: name of the recipe whose result it starts from; "" for the original CLIP.
        train: "visual" (fine-tuning), "mask-prompts", "both", with a frozen CLIP "text-prompts" or
            "template-map", or of a shared pass "mask-queries" or "mask-bias"; "": nothing, the CLIP
            that it starts from sees the crops in another way.
        pairs: "mined" or "ground-truth".
        crops: "masked" or "unmasked".
        background: of masked crops, "fill" or "drop".
        shared: what a shared pass learns, "classes" or "crops"; "": it is no shared pass.
        depth: of the mask prompts.
        length: steps, in units of the ablation's --steps.
    """

    name: str
    label: str
    start: str = ""
    train: str = "visual"
    pairs: str = "mined"
    crops: str = "masked"
    background: str = "fill"
    shared: str = ""
    depth: int = DEPTH
    length: int = 1

    @property
    def has_own_file(self) -> bool:
        """Its result is not a CLIP but the file of a key of :data:`OWN_FILES`."""
        return self.train in OWN_FILES

    @property
    def is_frozen(self) -> bool:
        """It learns something for the texts, and leaves CLIP as it is."""
        return self.train in FROZEN

    def opts(self, trained: Path) -> list[str]:
        """KEY VALUE pairs of the model that is scored; ``trained`` is what ``train.py`` wrote."""
        adapter = {"BACKGROUND": "drop"} if self.background == "drop" else {}
        if self.shared:
            adapter |= {"REGION_ENCODER": "shared", "SHARED_RESOLUTION": str(RESOLUTION)}
        if self.train == "text-prompts":
            adapter["TEXT_TEMPLATES"] = "learned"
        if self.has_own_file:
            adapter[OWN_FILES[self.train]] = str(trained)
        return [p for key, value in adapter.items() for p in (f"MODEL.CLIP_ADAPTER.{key}", value)]


#: shorter side of the image in a shared pass, in pixels
RESOLUTION = 128
#: learning rates of what is learned with a frozen CLIP
FROZEN_LR = {"text-prompts": 0.02, "template-map": 0.002}
BASELINE = "baseline"
#: the original CLIP, which one run is enough for
ORIGINAL = AdaptationRecipe(BASELINE, "baseline: original CLIP", train="")
RECIPES: tuple[AdaptationRecipe, ...] = (
    AdaptationRecipe("prompts", "mask prompt tuning only", train="mask-prompts"),
    AdaptationRecipe("finetuned", "fine-tuning only"),
    AdaptationRecipe(
        "both", "both: fine-tuning, then mask prompts", "finetuned", train="mask-prompts"
    ),
    AdaptationRecipe("joint", "both at once, as many steps as fine-tuning only", train="both"),
    AdaptationRecipe("finetuned_long", "control: fine-tuning, as many steps as both", length=2),
    AdaptationRecipe(
        "both_long", "both, the fine-tuning twice as long", "finetuned_long", train="mask-prompts"
    ),
    AdaptationRecipe("finetuned_longer", "control: fine-tuning, as many steps as that", length=3),
    AdaptationRecipe(
        "unmasked", "control: fine-tuning on the same crops, not masked", crops="unmasked"
    ),
    AdaptationRecipe("ground_truth", "fine-tuning, ground-truth pairs", pairs="ground-truth"),
    AdaptationRecipe(
        "prompts_depth1", "mask prompt tuning, depth 1", train="mask-prompts", depth=1
    ),
    AdaptationRecipe(
        "prompts_depth6", "mask prompt tuning, depth 6", train="mask-prompts", depth=6
    ),
    # steps are cheap here: every crop is encoded once
    AdaptationRecipe("text_prompts", "learned text prompts", train="text-prompts", length=5),
    AdaptationRecipe("template_map", "map over the templates", train="template-map", length=5),
    AdaptationRecipe(
        "tuned_map", "fine-tuning, then the map", "finetuned", train="template-map", length=5
    ),
    AdaptationRecipe(
        "dropped", "fine-tuning, background patches dropped in it too", background="drop"
    ),
    AdaptationRecipe(
        "undropped", "fine-tuning, dropped afterwards", "finetuned", train="", background="drop"
    ),
    *(
        AdaptationRecipe(
            name, f"shared pass, {label}", "finetuned_longer", train=train, shared=teacher, length=3
        )
        for name, label, train, teacher in (
            ("shared", "nothing trained for it", "", "classes"),
            ("shared_queries", "own queries, from classes", "mask-queries", "classes"),
            ("shared_teacher", "own queries, from crops", "mask-queries", "crops"),
            ("shared_bias", "own bias, from classes", "mask-bias", "classes"),
            ("shared_visual", "fine-tuning, from classes", "visual", "classes"),
        )
    ),
)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast every run trains."""

    steps: int
    batch: int
    lr: float
    prompt_lr: float


def train_arguments(
    recipe: AdaptationRecipe, seed: int, schedule: Schedule, clip: Path, pairs: Path, output: Path
) -> list[str]:
    """The arguments of ``open_clip_training/train.py`` for one run that trains something.

    Args:
        recipe: what to train.
        seed: of the order of the pairs and their augmentation.
        schedule: steps and rates.
        clip: to start from.
        pairs: the folder of the pairs; a shared pass learns from the ground truth of ``train``.
        output: the checkpoint to write.
    """
    steps = recipe.length * schedule.steps
    arguments = {
        "--clip": clip,
        "--train-data": pairs,
        "--output": output,
        "--train": recipe.train,
        "--steps": steps,
        "--warmup": steps // 10,
        "--lr": schedule.lr,
        "--seed": seed,
    }
    if recipe.shared:
        arguments |= {
            "--train-data": "stickerscenes_train",
            "--regions": "shared",
            "--teacher": recipe.shared,
            "--resolution": RESOLUTION,
            "--workers": 0,  # each run has a core of its own
            # of images, each with several regions
            "--batch-size": schedule.batch // 4,
        }
    elif recipe.is_frozen:
        arguments |= {"--batch-size": schedule.batch, "--prompt-lr": FROZEN_LR[recipe.train]}
    else:
        arguments |= {
            "--crops": recipe.crops,
            "--background": recipe.background,
            "--batch-size": schedule.batch,
            "--prompt-lr": schedule.prompt_lr,
        }
        if recipe.train != "visual":
            arguments["--mask-prompt-depth"] = recipe.depth
    return [str(part) for pair in arguments.items() for part in pair]
