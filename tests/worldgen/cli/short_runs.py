"""Runs of `worldgen train` that are short, and that are killed; and their pages."""

from __future__ import annotations

from html.parser import HTMLParser

DREAM = [
    "--dream.tokenizer-steps=20",
    "--dream.initial-model-steps=3",
    "--dream.model-steps-per-round=2",
    "--dream.doubted-model-steps=3",
    "--dream.initial-dream-steps=64",
    "--dream.dream-steps-per-round=64",
    "--dream.dream-envs=8",
    "--dream.horizon=8",
    "--dream.n-steps=8",
    "--dream.batch-size=16",
]
"""Options of a loop that is over in no time."""


class Killed(BaseException):
    """The process is killed."""


def kill_at(monkeypatch, owner, name, count, *, after=False):
    """Let the `count`-th call of a method kill the process, before or after its work."""
    original, calls = getattr(owner, name), []

    def dying(self, *arguments, **options):
        calls.append(name)
        if len(calls) == count and not after:
            raise Killed
        result = original(self, *arguments, **options)
        if len(calls) == count:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, dying)


class Links(HTMLParser):
    """Notes links, and tags that are not closed."""

    def __init__(self):
        super().__init__()
        self.links, self.open_tags = [], []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "br", "img"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag


def number_of_films(page):
    """Make sure that a page is whole and stands alone; give the number of films in it."""
    parser = Links()
    parser.feed(page)
    parser.close()
    assert parser.open_tags == []
    assert all(link.startswith(("#", "data:image/gif;base64,")) for link in parser.links)
    return sum(link.startswith("data:image/gif") for link in parser.links)
