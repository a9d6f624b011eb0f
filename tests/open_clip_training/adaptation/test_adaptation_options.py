"""Defaults, and arguments that cannot be used."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from adaptation_world import command, write_world

from open_clip_training.adaptation.options import parse_arguments
from open_clip_training.adaptation.settings import choose_settings
from open_clip_training.train import main
from ovseg.errors import UserError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with pairs and a CLIP without mask prompts."""
    return write_world(tmp_path_factory.mktemp("adaptation"))


def clip_without(entry):
    def write(world, tmp_path):
        content = torch.load(world / "clip.pt", weights_only=True)
        del content["state_dict"][entry]
        torch.save(content, tmp_path / "partial.pt")
        return tmp_path / "partial.pt"

    return write


def without_column(world, tmp_path):
    with (world / "pairs/pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "mask"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--train-data", without_column), r"lacks the column 'noun'; it has 'image', 'mask'"),
        (("--train-data", without_column), r"needs image and noun, or filepath and title"),
        (("--train-data", "nowhere.csv"), r"nowhere.csv is not there"),
        (("--train-data", "nowhere-*.tar"), r"no such shard"),
        (("--train-data", "clip.pt.tar"), r"no such shard"),
        (("--batch-size", 100), r"--batch-size 100 is more than the 14 pairs"),
        (("--accumulate", 4), r"multiple of processes x --accumulate, 1 x 4"),
        (("--warmup", 9), r"--warmup 9 must be less than the 3 steps"),
        (("--templates", "vidl"), r"vidl"),
        (("--eval-data", "stickerscene_dev"), r"stickerscene_dev"),
        (("--device", "gpu"), r"--device 'gpu' is none"),
        (("--device", "cuda:77"), r"--device 'cuda:77': there is no such GPU"),
        (("--templates", "predefined"), r"--templates 'predefined': give vild"),
        (("--clip", clip_without("ln_final.bias")), r"fit the CLIP of --clip: ln_final.bias"),
        (("--output", Path("/")), r"--output '/' is a folder"),
        (("--output", Path(__file__) / "x.pt"), r"--output .*x.pt' cannot be written"),
        (("--batch-size", 0), r"--batch-size 0: give 2 or more"),
        (("--lr", -1), r"--lr -1.0: give 0 or more"),
        (("--lr", "nan"), r"--lr nan"),
        (("--weight-decay", -1), r"--weight-decay -1.0"),
        (("--eval-images", -39), r"--eval-images -39"),
        (("--seed", 2**63), r"--seed .*: give 0 to 4294967295"),
        (("--clip", "nowhere.pt"), r"nowhere.pt.*no such file"),
        (("--clip", "ViT-X/99"), r"--clip 'ViT-X/99' is neither a file nor a model"),
        (("--mask-prompt-depth", 4, "--train", "both"), r"must lie in 1..3"),
        (("--mask-prompt-depth", 3, "--train", "visual"), r"--train visual trains none"),
        (("--output", lambda world, _: world / "clip.pt"), r"--output .* is the file of --clip"),
        (("--captions", "as-is"), r"--captions is for tables of filepath and title"),
        (("--fill-tolerance", 3), r"--fill-tolerance 3 is for crops without mask files"),
        (("--resume", None), r"--resume: .* is not there"),
    ],
)
def test_what_cannot_be_used_is_named(world, tmp_path, extra, message):
    words = [word(world, tmp_path) if callable(word) else word for word in extra]
    with pytest.raises(UserError, match=message):
        main(command(world, tmp_path / "new.pt", *words))
    assert not list(Path(tmp_path).glob("new.pt"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resolution", "64"], "--resolution is not for --regions crops; leave it out"),
        (["--region-lr", "0.1"], "--region-lr is not for --regions crops"),
        (["--prompts", "4"], "--prompts is not for --train visual"),
        (
            ["--train", "text-prompts", "--no-augment"],
            "--no-augment is not for --train text-prompts",
        ),
        (
            ["--train", "template-map", "--prompts", "4"],
            "--prompts is not for --train template-map",
        ),
        (["--regions", "shared", "--prompts", "4"], "--prompts is not for --regions shared"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        parse_arguments(["--clip", "ViT-L/14", "--train-data", "x", "--output", "y", *words])


def test_defaults_are_the_papers():
    options = parse_arguments(["--clip", "ViT-L/14", "--train-data", "x", "--output", "y"])
    large, base = (choose_settings(options, 440_000, width, world=1) for width in (1024, 768))
    assert (large.batch, base.batch) == (256, 1024)
    assert (large.steps, base.steps) == (5 * 1718, 5 * 429)
    assert (large.lr, large.weight_decay, large.warmup) == (5e-6, 0.2, 100)
    assert 0.02 <= large.prompt_lr <= 0.05
    assert len(large.templates) == 14


def test_a_template_map_has_a_learning_rate_of_its_own():
    words = ["--clip", "ViT-L/14", "--train-data", "x", "--output", "y", "--train"]
    rates = [parse_arguments([*words, kind]).prompt_lr for kind in ("template-map", "mask-prompts")]
    assert rates == [0.002, 0.05]
    assert parse_arguments([*words, "template-map", "--prompt-lr", "0.001"]).prompt_lr == 0.001


def test_what_differs_from_the_published_training_can_be_as_published():
    command_line = ["--clip", "ViT-L/14", "--train-data", "x", "--output", "y", "--published"]
    settings = choose_settings(parse_arguments(command_line), 440_000, 1024, world=1)
    assert settings.plain_loss
    assert settings.templates == ("a photo of a {}.",)
    assert (settings.augment, settings.mirror) == (True, False)
    options = parse_arguments([*command_line, "--captions", "as-is"])
    assert choose_settings(options, 440_000, 1024, world=1).templates == ("{}",)
    with pytest.raises(UserError, match="--published is not for --train text-prompts"):
        parse_arguments([*command_line, "--train", "text-prompts"])
