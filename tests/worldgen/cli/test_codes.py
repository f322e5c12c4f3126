"""`worldgen codes`: what it writes, and what it refuses."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worldgen import Tokenizer, TokenizerConfig, WorldModel
from worldgen.data import Episodes
from worldgen.tokenizer import QuantizerConfig


class Page(HTMLParser):
    """Gathers what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if "id" in values:
            assert values["id"] not in self.ids
            self.ids.add(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if tag == "img":
            self.pictures.append(values["src"])
        if tag not in ("meta", "img", "br", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open[-1] != tag and self.open[-1] in ("tr", "th", "td", "p"):
            self.open.pop()
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def written(command, finished, tmp_path_factory):
    """The codes of the finished run, and what was said."""
    folder, _ = finished
    output = tmp_path_factory.mktemp("codes") / "codes"
    ended = command("codes", folder, "--output", output, "--examples", 2)
    assert ended.code == 0, ended.err
    return folder, output, ended


def test_it_writes_all_there_is_to_see(written):
    _, output, ended = written
    names = {path.name for path in output.iterdir()}
    assert {"index.html", "codes.json", "tokens.gif", "usage-image.png"} <= names
    assert {"atlas-image-01.png", "atlas-direction-01.png", "usage-direction.png"} <= names
    assert ended.out.endswith(f"codes: {output / 'index.html'}\n")
    assert "image" in ended.out
    for name in names - {"index.html", "codes.json"}:
        with Image.open(output / name) as picture:
            colors = np.asarray(picture.convert("RGB")).reshape(-1, 3)
            assert len(np.unique(colors, axis=0)) > 3


def test_the_numbers_are_those_of_the_held_out_episodes(written):
    folder, output, _ = written
    values = json.loads((output / "codes.json").read_text())
    tokenizer = WorldModel.load(folder / "model", device="cpu").tokenizer
    episodes = Episodes.load(folder / "held_out")
    tokens = np.concatenate([tokenizer.encode_flat(e.observations).numpy() for e in episodes])
    assert values["frames"] == len(tokens)
    for path, place in tokenizer.token_slices.items():
        codes, counts = np.unique(tokens[:, place], return_counts=True)
        (book,) = values["leaves"][path]["codebooks"]
        naive = dict(zip(map(str, codes.tolist()), counts.tolist(), strict=True))
        assert book["counts"] == naive
        assert list(book["counts"].values()) == sorted(naive.values(), reverse=True)
        assert book["in_use"] == len(codes)


def test_the_page_needs_nothing_but_itself(written):
    _, output, _ = written
    text = (output / "index.html").read_text()
    page = Page(text)
    assert not page.open
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert all(picture.startswith("data:image/") for picture in page.pictures)
    assert "http" not in text.replace("data:image", "")
    values = json.loads((output / "codes.json").read_text())
    for path, leaf in values["leaves"].items():
        for code in leaf["codebooks"][0]["counts"]:
            assert f"codes-{path}-{code}" in page.ids


def test_the_film_has_a_picture_a_frame(written):
    folder, output, _ = written
    lengths = [len(episode) + 1 for episode in Episodes.load(folder / "held_out")]
    with Image.open(output / "tokens.gif") as film:
        assert 1 < film.n_frames <= min(60, max(lengths))


def test_a_folder_is_replaced_only_if_asked(command, written, tmp_path):
    folder, output, _ = written
    again = command("codes", folder, "--output", output)
    assert again.code == 1
    assert "exists already: pass --overwrite" in again.err
    before = (output / "codes.json").read_bytes()
    assert command("codes", folder, "--output", output, "--overwrite").code == 0
    assert (output / "codes.json").read_bytes() == before
    (tmp_path / "mine.txt").write_text("keep me")
    foreign = command("codes", folder, "--output", tmp_path, "--overwrite")
    assert foreign.code == 1
    assert "holds no codes and is not empty" in foreign.err
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_a_tokenizer_alone_needs_episodes(command, written, tmp_path):
    folder, _, _ = written
    tokenizer = WorldModel.load(folder / "model", device="cpu").tokenizer
    tokenizer.save(tmp_path / "tokenizer")
    alone = command("codes", tmp_path / "tokenizer")
    assert alone.code == 2
    assert "pass --episodes" in alone.err
    shown = command(
        "codes", tmp_path / "tokenizer", "--episodes", folder / "held_out", "--episode", 0
    )
    assert shown.code == 0, shown.err
    assert (tmp_path / "tokenizer" / "codes" / "index.html").is_file()
    assert Tokenizer.load(tmp_path / "tokenizer", device="cpu").is_fitted  # Codes inside or not.
    beyond = command(
        "codes", tmp_path / "tokenizer", "--episodes", folder / "held_out", "--episode", 999,
        "--output", tmp_path / "other",
    )  # fmt: skip
    assert beyond.code == 2
    assert "`film_episode` must be in [0, " in beyond.err


def test_what_has_no_codes_or_other_episodes_is_refused(command, written, tmp_path):
    folder, _, _ = written
    episodes = Episodes.load(folder / "held_out")
    config = TokenizerConfig(hidden=8, quantizer=QuantizerConfig(kind="gaussian", dim=2))
    plain = Tokenizer.for_space(episodes.observation_space, config, device="cpu")
    plain.fit(list(episodes), gradient_steps=1)
    plain.save(tmp_path / "plain")
    ended = command("codes", tmp_path / "plain", "--episodes", folder / "held_out")
    assert ended.code == 2
    assert "has none: use 'vq', 'residual' or 'fsq'" in ended.err
    other = tmp_path / "cartpole"
    assert command("collect", "CartPole-v1", "--output", other, "--timesteps", 20).code == 0
    ended = command("codes", folder, "--episodes", other, "--output", tmp_path / "codes")
    assert ended.code == 1
    assert "the model was built for the observation space" in ended.err
    assert not Path(tmp_path / "codes").exists()
