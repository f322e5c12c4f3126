"""Text, such as an environment's mission: byte pairs, exact for any string.

Classes:
    TextCodec.

Neural Machine Translation of Rare Words with Subword Units, Sennrich et al. 2016,
https://arxiv.org/abs/1508.07909; over bytes, so that no word is unknown.
"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from worldgen.codes import Codebook
from worldgen.errors import ShapeError

__all__ = ["TextCodec"]

_NUM_PIECES = 512
_END = 0
_FIRST_MERGE = 257
"""Pieces 1 to 256 are the bytes."""
_MOST_TEXTS = 2_000
"""Most different texts, the commonest, that pieces are learned from."""
_MOST_REMEMBERED = 10_000


class TextCodec(nn.Module):
    """A fixed number of tokens for each text; those behind its end are 0.

    The 512 pieces are the end, the 256 bytes of UTF-8, and up to 255 joins of two pieces that
    often stand side by side in the texts of `fit`. A mission that was seen often becomes a
    piece or two, and a word that was never seen costs at most a token a byte.

    Args:
        path: Name of the leaf, for error messages.
        space: The leaf.
        dim: E, entries of the fixed random embeddings.
        num_tokens: K.
    """

    encodes_few = True
    merges: Tensor
    vectors: Tensor

    def __init__(self, path: str, space: spaces.Text, dim: int, num_tokens: int) -> None:
        super().__init__()
        self._path, self._space, self.num_tokens = path, space, num_tokens
        # Row i joins two pieces to piece 257 + i; rows without a join are 0.
        joins = torch.zeros(_NUM_PIECES - _FIRST_MERGE, 2, dtype=torch.int64)
        self.register_buffer("merges", joins)
        self.register_buffer("vectors", torch.randn(_NUM_PIECES, dim))
        self.refresh()

    def fit(self, texts: np.ndarray) -> None:
        """Learn the joins from texts (N,), the commonest pair of pieces first."""
        counts = Counter(texts.tolist()).most_common(_MOST_TEXTS)
        words = [[byte + 1 for byte in text.encode()] for text, _ in counts]
        self.merges.zero_()
        for row in range(len(self.merges)):
            pairs: Counter[tuple[int, int]] = Counter()
            for word, (_, count) in zip(words, counts, strict=True):
                for pair in itertools.pairwise(word):
                    pairs[pair] += count
            if not pairs:
                break
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            self.merges[row] = torch.tensor(best)
            words = [_join(word, best, _FIRST_MERGE + row) for word in words]
        self.refresh()

    def refresh(self) -> None:
        """Rebuild what follows from the joins; to be called after loading them."""
        self._rank: dict[tuple[int, int], int] = {}
        self._pieces = [b"", *(bytes([value]) for value in range(256))]
        for row, (left, right) in enumerate(self.merges.tolist()):
            if left:
                self._rank[left, right] = _FIRST_MERGE + row
                self._pieces.append(self._pieces[left] + self._pieces[right])
        self._remembered: dict[str, list[int]] = {}

    def codebooks(self, first_token: int) -> list[Codebook]:
        """Describe the one codebook, whose positions begin at `first_token`."""
        width = self.vectors.shape[-1]
        return [Codebook(_NUM_PIECES, first_token, self.num_tokens, width, numbers=False)]

    def vectors_by_codebook(self) -> list[Tensor]:
        """Give the (V, E) vectors of the pieces."""
        return [self.vectors]

    def code_contents(self) -> list[Tensor]:
        """Describe pieces by their vectors, having nothing else."""
        return self.vectors_by_codebook()

    def pieces(self) -> list[str]:
        r"""Give what each code in use stands for; bytes that are no character alone as \\xNN."""
        return [piece.decode(errors="backslashreplace") for piece in self._pieces]

    def encode_few(self, texts: np.ndarray) -> np.ndarray:
        """Texts (B,) to codes (B, K) int64.

        Raises:
            ShapeError: If a text needs more than K tokens.
        """
        return np.array([self._encode(str(text)) for text in texts.ravel()], np.int64)

    def encode(self, texts: np.ndarray) -> Tensor:
        """Like `encode_few`, as a tensor on the codec's device."""
        return torch.from_numpy(self.encode_few(texts)).to(self.vectors.device)

    def decode(self, codes: Tensor) -> np.ndarray:
        """Codes (B, K) to texts (B,), without characters that the space does not have."""
        texts = []
        for row in codes.tolist():
            known = [self._pieces[code] for code in row if code < len(self._pieces)]
            text = b"".join(known).decode(errors="ignore")
            allowed = self._space.character_set
            kept = "".join(character for character in text if character in allowed)
            texts.append(kept[: self._space.max_length])
        return np.array(texts, dtype=np.str_)

    def reconstruct(self, texts: np.ndarray) -> np.ndarray:
        """Give the texts as they are."""
        return texts

    def embed_observations(self, texts: np.ndarray) -> Tensor:
        """Give the vectors of texts (B,): (B, K, E)."""
        return self.vectors[self.encode(texts)]

    def _encode(self, text: str) -> list[int]:
        if text not in self._remembered:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[text] = self._checked(text)
        return self._remembered[text]

    def _checked(self, text: str) -> list[int]:
        word = [byte + 1 for byte in text.encode()]
        while len(word) > 1:
            pairs = set(itertools.pairwise(word))
            first = min(pairs, key=lambda pair: self._rank.get(pair, _NUM_PIECES))
            if first not in self._rank:
                break
            word = _join(word, first, self._rank[first])
        if len(word) > self.num_tokens:
            raise ShapeError(
                f"{self._path!r} must be text of at most {self.num_tokens} tokens, got "
                f"{text[:60]!r}, which needs {len(word)}: raise `max_text_tokens`, or fit the "
                "tokenizer on texts that are more like it"
            )
        return word + [_END] * (self.num_tokens - len(word))


def _join(word: list[int], pair: tuple[int, int], joined: int) -> list[int]:
    """Put `joined` for each `pair` in the word, from the left."""
    result: list[int] = []
    place = 0
    while place < len(word):
        if tuple(word[place : place + 2]) == pair:
            result.append(joined)
            place += 2
        else:
            result.append(word[place])
            place += 1
    return result
