"""Make a video of moving StickerScenes with the label map of every frame.

    python datasets/prepare_stickerscenes_clip.py --split test --scenes 5 --output clip.avi

Needs the artwork, as prepare_stickerscenes.py does. The first scenes of the split that hold two
objects or more are shown one after the other. The labels are clip_labels/000000.png and so on.
"""

from __future__ import annotations

import logging
import os
from itertools import islice
from pathlib import Path

from PIL import Image

from ovseg.data.stickerscenes import object_concepts
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.utils.io import atomic_path
from ovseg.video.files import CODECS, VideoFile
from stickerscenes.clips import moving_scenes
from stickerscenes.generate import SEGMENTATION_SPLITS, sample_split
from stickerscenes.render import render_scene
from stickerscenes.sprites import build_sprites

_RATE = 10.0


def build_parser() -> Parser:
    """The options."""
    from ovseg.data.splits import data_root

    parser = Parser(__doc__)
    add = parser.add_argument
    add("--root", type=Path, default=data_root(), help="folder of data sets, with the artwork")
    add("--split", default="dev", choices=[*SEGMENTATION_SPLITS], help="default: dev")
    add("--scenes", type=int, default=5, metavar="N", help="default: 5")
    add("--frames", type=int, default=40, metavar="N", help="of each scene; default: 40")
    add("--size", type=int, default=192, metavar="PIXELS", help="default: 192")
    add("--output", type=Path, default=Path("clip.avi"), metavar="FILE", help="default: clip.avi")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Make the video.

    Raises:
        UserError: an argument cannot be used, or the artwork cannot be had.
    """
    args = build_parser().parse_args(arguments)
    for name in ("scenes", "frames", "size"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)} must be at least 1")
    if args.output.suffix.lower() not in CODECS:
        raise UserError(f"--output {str(args.output)!r} must end in one of {', '.join(CODECS)}")
    book = build_sprites(args.root / "stickerscenes" / "artwork", object_concepts(), 1)
    split = SEGMENTATION_SPLITS[args.split]
    scenes = (s for s in sample_split(split, book, split.count) if len(s.stickers) > 1)
    labels = args.output.with_name(f"{args.output.stem}_labels")
    with atomic_path(args.output) as path, VideoFile(path, _RATE) as video:
        for scene in islice(scenes, args.scenes):
            for frame in moving_scenes(scene, args.frames):
                rendering = render_scene(frame, args.size, book)
                with atomic_path(labels / f"{video.count:06d}.png") as file:
                    Image.fromarray(rendering.labels).save(file)
                video.write(rendering.image)
    logging.info("%d frames: %s and %s%s", video.count, args.output, labels, os.sep)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with cli_errors():
        main()
