"""The runs of the ablation: how each CLIP is adapted, by which command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: mask prompts' depth where a row says nothing else
DEPTH = 3


@dataclass(frozen=True)
class AdaptationRecipe:
    """How to adapt a CLIP.

    Attributes:
        name: of its folder.
        label: of its row.
        start: name of the recipe whose result it starts from; "" for the original CLIP.
        train: "visual" (fine-tuning), "mask-prompts" or "both".
        pairs: "mined" or "ground-truth".
        crops: "masked" or "unmasked".
        depth: of the mask prompts.
        length: steps, in units of the ablation's --steps.
    """

    name: str
    label: str
    start: str = ""
    train: str = "visual"
    pairs: str = "mined"
    crops: str = "masked"
    depth: int = DEPTH
    length: int = 1


BASELINE = "baseline"
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
    """The arguments of ``open_clip_training/train.py`` for one run.

    Args:
        recipe: what to train.
        seed: of the order of the pairs and their augmentation.
        schedule: steps and rates.
        clip: to start from.
        pairs: the folder of the pairs.
        output: the checkpoint to write.
    """
    steps = recipe.length * schedule.steps
    arguments = {
        "--clip": clip,
        "--train-data": pairs,
        "--output": output,
        "--train": recipe.train,
        "--crops": recipe.crops,
        "--steps": steps,
        "--warmup": steps // 10,
        "--batch-size": schedule.batch,
        "--lr": schedule.lr,
        "--prompt-lr": schedule.prompt_lr,
        "--seed": seed,
    }
    if recipe.train != "visual":
        arguments["--mask-prompt-depth"] = recipe.depth
    return [str(part) for pair in arguments.items() for part in pair]
