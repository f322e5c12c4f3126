"""Codes read and written through what they stand for."""

from __future__ import annotations

import torch

from worldgen.codes import Codebook, NamePort, NumberPort, make_port


def test_the_codebook_says_which_port() -> None:
    assert isinstance(make_port(Codebook(5, 0, 1, 2, numbers=True), 8), NumberPort)
    assert isinstance(make_port(Codebook(5, 0, 1, 2, numbers=False), 8), NamePort)


def test_numbers_are_scored_by_their_distance() -> None:
    port = NumberPort(Codebook(5, 0, 3, 2, numbers=True), 8)
    values = torch.randn(5, 2)
    port.set_contents(values)
    torch.nn.init.normal_(port.change.weight)
    torch.nn.init.normal_(port.log_width.weight, std=0.1)
    hidden, previous = torch.randn(4, 3, 8), torch.randint(0, 5, (4, 3))
    logits = port.logits(hidden, previous)
    for row in range(4):
        for place in range(3):
            mean = values[previous[row, place]] + port.change(hidden[row, place])
            width = port.log_width(hidden[row, place]).exp()
            expected = -0.5 * ((mean - values) / width).square().sum(-1)
            found = logits[row, place].log_softmax(-1)  # What all codes share does not count.
            assert torch.allclose(found, expected.log_softmax(-1), rtol=1e-4, atol=1e-3)


def test_an_untrained_port_of_numbers_expects_no_change() -> None:
    port = NumberPort(Codebook(9, 0, 1, 1, numbers=True), 8)
    port.set_contents(torch.linspace(-2, 2, 9).unsqueeze(1))
    previous = torch.arange(9).unsqueeze(1)
    assert torch.equal(port.logits(torch.randn(9, 1, 8), previous).argmax(-1), previous)


def test_numbers_are_read_at_as_many_octaves_as_wanted() -> None:
    codebook = Codebook(5, 0, 1, 2, numbers=True)
    for octaves in (0, 1, 6):
        port = make_port(codebook, 8, octaves)
        port.set_contents(torch.randn(5, 2))
        assert isinstance(port, NumberPort)
        assert port.read.in_features == 2 * (1 + 2 * octaves)
        assert port.table().shape == (5, 8)


def test_names_that_share_content_share_scores() -> None:
    port = NamePort(Codebook(4, 0, 1, 6, numbers=False), 8)
    contents = torch.eye(4, 6)
    contents[3] = contents[0] + contents[1]
    port.set_contents(contents)
    torch.nn.init.zeros_(port.free_logits.weight)
    hidden = torch.randn(10, 1, 8)
    without_bias = port.logits(hidden, torch.zeros(10, 1, dtype=torch.int64))
    assert torch.allclose(
        without_bias[..., 3], without_bias[..., 0] + without_bias[..., 1], atol=1e-5
    )


def test_codes_that_do_not_occur_are_held_back() -> None:
    port = make_port(Codebook(4, 0, 2, 3, numbers=False), 8)
    port.set_contents(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    hidden = torch.randn(50, 2, 8, generator=torch.Generator().manual_seed(1))
    previous = torch.zeros(50, 2, dtype=torch.int64)
    before = port.logits(hidden, previous)
    port.set_seen(torch.tensor([[0, 2], [2, 2]]))
    after = port.logits(hidden, previous)
    assert torch.allclose(after[..., [0, 2]], before[..., [0, 2]])
    assert after.softmax(-1)[..., [1, 3]].max() < 1e-3
    port.set_seen(torch.arange(4))
    assert torch.allclose(port.logits(hidden, previous), before)
