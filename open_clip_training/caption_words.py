"""Find the words of captions, for OpenSeg's training.

    python open_clip_training/caption_words.py --adjectives \\
        --captions datasets/stickerscenes/captions_train.json \\
        --images datasets/stickerscenes/images/train --output output/caption_words.json
    python train_net.py --config-file configs/methods/openseg.yaml

They are the nouns, as collect_pairs.py finds them. The file holds the words of each image by the
image's file name; the config key INPUT.CAPTION_WORDS names it.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from open_clip_training.common.options import check_ranges
from open_clip_training.common.scripts import refuse_several_processes, run_script
from open_clip_training.mining.captions import read_captions
from open_clip_training.mining.nouns import SPACY_MODEL, load_tagger, nouns_of_captions
from ovseg.errors import Parser
from ovseg.utils.io import write_json

logger = logging.getLogger("caption_words")


def main(arguments: Sequence[str] | None = None) -> None:
    """Find them as the command line says.

    Raises:
        UserError: an argument or the captions cannot be used.
    """
    refuse_several_processes()
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--captions", type=Path, required=True,
        help="COCO captions (.json), or a CSV with image and caption")  # fmt: skip
    add("--images", type=Path, help="folder of the images (default: that of --captions)")
    add("--captions-per-image", type=int, default=1, help="1, or 5 for all of COCO's")
    add("--adjectives", action="store_true", help='"polar bear": keep what is before a noun')
    add("--spacy-model", default=SPACY_MODEL, help="an installed English pipeline of spaCy")
    add("--seed", type=int, default=0, help="choice of captions")
    add("--output", type=Path, required=True, help="the file to write (.json)")
    options = parser.parse_args(arguments)
    check_ranges(options, {"captions_per_image": (1, math.inf)})
    images = read_captions(
        options.captions, options.images, options.captions_per_image, options.seed, None, Counter()
    )
    captions = [caption for image in images for caption in image.captions]
    tagger = load_tagger(options.spacy_model)
    nouns = iter(nouns_of_captions(captions, tagger, options.adjectives))
    words = {
        image.path.name: list(dict.fromkeys(noun for _ in image.captions for noun in next(nouns)))
        for image in images
    }
    write_json(options.output, words)
    known = {word for of_image in words.values() for word in of_image}
    logger.info("%s: %d images, %d distinct words", options.output, len(words), len(known))


if __name__ == "__main__":
    run_script(main)
