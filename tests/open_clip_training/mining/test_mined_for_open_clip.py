"""open_clip's own readers of training data take mined pairs."""

from __future__ import annotations

import open_clip
import pytest
import torch
from clip_pairs import write_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def test_open_clips_own_reader_takes_the_table(folder, monkeypatch):
    data = pytest.importorskip("open_clip_train.data", reason="needs pandas and webdataset")
    monkeypatch.chdir(folder)  # paths in the table are relative to it
    transform = open_clip.image_transform(16, is_train=False)
    dataset = data.CsvDataset(
        "pairs.csv", transform, "image", "caption", ",", open_clip.SimpleTokenizer()
    )
    assert len(dataset) == 14
    image, tokens = dataset[1]
    assert image.shape == (3, 16, 16)
    assert torch.equal(tokens, open_clip.tokenize(["a photo of a grass."])[0])


def test_open_clips_own_reader_takes_the_shards(folder):
    data = pytest.importorskip("open_clip_train.data", reason="needs pandas and webdataset")
    from open_clip_train.params import parse_args

    shards = str(folder / "pairs-{000000..000001}.tar")
    args = parse_args(["--train-data", shards, "--train-num-samples", "14", "--batch-size", "2",
                       "--workers", "0", "--dataset-type", "webdataset"])  # fmt: skip
    args.world_size = 1
    transform = open_clip.image_transform(16, is_train=False)
    loader = data.get_wds_dataset(
        args, transform, is_train=True, tokenizer=open_clip.SimpleTokenizer()
    ).dataloader
    batches = list(loader)
    assert len(batches) == 7
    tokens = torch.cat([texts for _, texts in batches])
    known = {noun: open_clip.tokenize([f"a photo of a {noun}."])[0] for noun in ("sea", "red ball")}
    # 14 pairs, the nouns in turn: five red balls, four seas
    found = {noun: int((tokens == row).all(dim=1).sum()) for noun, row in known.items()}
    assert found == {"sea": 4, "red ball": 5}
