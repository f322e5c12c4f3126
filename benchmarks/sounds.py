"""Test sounds made from numbers alone: tones, chirps and words of a small formant synthesizer.

Functions:
    tones: sine waves of any frequency, phase and loudness.
    chirps: sine waves whose frequency glides.
    words: a dozen English words, each time by another speaker.
    write_wav: a sound file that any player opens.

The synthesizer is a glottal pulse train and noise, sent through resonators whose frequencies
follow the formants of the phones (Klatt 1980, https://doi.org/10.1121/1.383940; the vowels'
formants are those of Peterson and Barney 1952, https://doi.org/10.1121/1.1906875).
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["RATE", "WORDS", "chirps", "tones", "words", "write_wav"]

RATE = 8000
"""Samples a second."""
_CONTROL = 40
"""Samples between two settings of the synthesizer, 5 ms."""
_BANDWIDTHS = np.array([70.0, 100.0, 150.0])
"""Of the three formants, in Hz."""

Waves = NDArray[np.float32]


@dataclass(frozen=True)
class _Phone:
    """What the synthesizer holds while it says one sound of a language."""

    formants: tuple[float, float, float]
    milliseconds: float
    voice: float = 1.0
    """Loudness of the pulse train."""
    noise: float = 0.0
    """Loudness of the noise."""
    noise_center: float = 0.0
    """Middle of the noise's band in Hz; 0 sends the noise through the formants."""


_PHONES = {
    "iy": _Phone((270, 2290, 3010), 140),
    "ih": _Phone((390, 1990, 2550), 100),
    "eh": _Phone((530, 1840, 2480), 120),
    "ah": _Phone((640, 1190, 2390), 120),
    "aa": _Phone((730, 1090, 2440), 140),
    "ao": _Phone((570, 840, 2410), 120),
    "uw": _Phone((300, 870, 2240), 140),
    "er": _Phone((490, 1350, 1690), 120),
    "w": _Phone((290, 610, 2150), 70, 0.6),
    "y": _Phone((260, 2200, 3000), 60, 0.6),
    "r": _Phone((310, 1060, 1380), 70, 0.6),
    "l": _Phone((310, 1050, 2880), 70, 0.6),
    "n": _Phone((250, 1600, 2600), 80, 0.35),
    "v": _Phone((220, 1100, 2080), 60, 0.4, 0.05, 2800),
    "s": _Phone((320, 1390, 2530), 120, 0.0, 0.25, 3500),
    "f": _Phone((340, 1100, 2080), 100, 0.0, 0.08, 2800),
    "th": _Phone((320, 1290, 2540), 90, 0.0, 0.08, 3000),
    "gap": _Phone((400, 1500, 2500), 50, 0.0),
    "t": _Phone((400, 1600, 2600), 25, 0.0, 0.3, 3200),
    "k": _Phone((300, 1990, 2850), 30, 0.0, 0.3, 1900),
    "p": _Phone((400, 1100, 2150), 20, 0.0, 0.2, 900),
    "d": _Phone((200, 1600, 2600), 20, 0.3, 0.15, 3000),
    "g": _Phone((200, 1990, 2850), 25, 0.3, 0.15, 1800),
}
WORDS = {
    "yes": "y eh s",
    "no": "n ao uw",
    "go": "g ao uw",
    "stop": "s gap t aa gap p",
    "left": "l eh f gap t",
    "right": "r aa ih gap t",
    "up": "ah gap p",
    "down": "d aa ao n",
    "one": "w ah n",
    "two": "t uw",
    "seven": "s eh v ih n",
    "three": "th r iy",
}
"""Word -> its phones."""


def tones(count: int, size: int, generator: np.random.Generator) -> Waves:
    """Draw sine waves (count, size) of 80 to 3,600 Hz and an amplitude of 0.1 to 0.8."""
    frequency = _frequencies(count, generator)
    return _sine(np.repeat(frequency, size, axis=1), generator)


def chirps(count: int, size: int, generator: np.random.Generator) -> Waves:
    """Draw sine waves (count, size) that glide evenly from one frequency to another."""
    first, last = _frequencies(count, generator), _frequencies(count, generator)
    return _sine(first + (last - first) * np.linspace(0, 1, size), generator)


def words(
    count: int, size: int, generator: np.random.Generator, spoken: str | None = None
) -> Waves:
    """Draw words (count, size), each with a pitch, a speed and a speaker of its own.

    Args:
        count: How many.
        size: Samples each; silence follows a short word, the end of a long one is lost.
        generator: Draws everything.
        spoken: One of `WORDS`; by default each is drawn.
    """
    steps = -(-size // _CONTROL)
    formants = np.zeros((steps, 3, count))
    levels = np.zeros((steps, 3, count))  # voice, noise through the formants, noise in a band
    band = np.full((steps, count), 2500.0)
    for index in range(count):
        word = spoken or str(generator.choice(list(WORDS)))
        speed, tract = generator.uniform(0.8, 1.3), generator.uniform(0.95, 1.2)
        phones = [_PHONES[name] for name in WORDS[word].split()]
        track = np.stack([_track(phone) for phone in phones])
        ends = np.cumsum([phone.milliseconds * RATE / 1000 / speed for phone in phones])
        at = np.interp((np.arange(steps) + 0.5) * _CONTROL, *_corners(ends))
        held = np.stack([np.interp(at, np.arange(len(track)), row) for row in track.T])
        held[3:6, (np.arange(steps) + 0.5) * _CONTROL > ends[-1]] = 0
        formants[:, :, index] = (held[:3] * tract).T.clip(max=0.47 * RATE)
        levels[:, :, index], band[:, index] = held[3:6].T, held[6]
    return _synthesize(formants, levels, band, size, generator)


def write_wav(path: Path, waves: NDArray[np.floating], rate: int = RATE) -> None:
    """Write samples in [-1, 1], one sound after the other, as 16-bit PCM."""
    samples = np.rint(np.clip(waves.reshape(-1), -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def _frequencies(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    return np.exp(generator.uniform(np.log(80), np.log(3600), (count, 1)))


def _sine(frequency: NDArray[np.float64], generator: np.random.Generator) -> Waves:
    count = len(frequency)
    phase = generator.uniform(0, 2 * np.pi, (count, 1)) + np.cumsum(
        2 * np.pi * frequency / RATE, axis=1
    )
    amplitude = generator.uniform(0.1, 0.8, (count, 1))
    return (amplitude * np.sin(phase)).astype(np.float32)


def _track(phone: _Phone) -> NDArray[np.float64]:
    """Lay a phone out as formants, voice, two noises and the noise's band."""
    through = phone.noise if not phone.noise_center else 0.0
    banded = phone.noise if phone.noise_center else 0.0
    return np.array([*phone.formants, phone.voice, through, banded, phone.noise_center or 2500.0])


def _corners(ends: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the times and phone numbers between which the tract moves: it glides 20 ms."""
    starts = np.concatenate([[0.0], ends[:-1]])
    glide = np.minimum(0.01 * RATE, (ends - starts) / 3)
    times = np.stack([starts + glide, ends - glide], axis=1).reshape(-1)
    return times, np.repeat(np.arange(len(ends)), 2).astype(np.float64)


def _synthesize(
    formants: NDArray[np.float64],
    levels: NDArray[np.float64],
    band: NDArray[np.float64],
    size: int,
    generator: np.random.Generator,
) -> Waves:
    """Send pulses and noise through the resonators, all words at once."""
    count = levels.shape[-1]
    level = np.repeat(levels, _CONTROL, axis=0)[:size]
    level = _smooth(level)
    pulses = _pulses(size, count, generator) * level[:, 0]
    noise = generator.normal(size=(size, count))
    voiced = pulses + 0.3 * noise * level[:, 1]
    for index, bandwidth in enumerate(_BANDWIDTHS):
        voiced = _resonate(voiced, formants[:, index], bandwidth)
    hiss = _resonate(noise * level[:, 2], band, 700.0)
    radiated = np.diff(voiced, axis=0, prepend=0.0)  # The lips radiate changes of flow.
    loudness = generator.uniform(0.3, 0.9, count)
    speech = radiated / np.abs(radiated).max(0).clip(min=1e-9) + 0.6 * hiss
    peak = np.abs(speech).max(0).clip(min=1e-9)
    spoken: NDArray[np.float32] = (speech / peak * loudness).T.astype(np.float32)
    return spoken


def _pulses(size: int, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Glottal pulses (size, count) of falling pitch, rounded off as vocal folds do."""
    start = np.exp(generator.uniform(np.log(90), np.log(240), count))
    fall = generator.uniform(0.75, 1.05, count)
    pitch = start * fall ** (np.arange(size)[:, None] / (0.5 * RATE))
    cycles = np.cumsum(pitch / RATE, axis=0) + generator.uniform(0, 1, count)
    # The flow rises and falls during 60% of a cycle (Rosenberg 1971) and is shut for the rest.
    share = np.minimum((cycles % 1.0) / 0.6, 1.0)
    flow = 3 * share**2 * (1 - share) * 2.25
    alternating: NDArray[np.float64] = flow - flow.mean(0)
    return alternating


def _resonate(
    source: NDArray[np.float64], centers: NDArray[np.float64], bandwidth: float
) -> NDArray[np.float64]:
    """Filter (T, count) by a two-pole resonator whose center moves every 5 ms."""
    radius = np.exp(-np.pi * bandwidth / RATE)
    feedback = 2 * radius * np.cos(2 * np.pi * centers / RATE)
    gain = 1 - feedback + radius**2  # Unity at 0 Hz.
    output = np.zeros_like(source)
    last = before = np.zeros(source.shape[1])
    for time in range(len(source)):
        control = time // _CONTROL
        now = gain[control] * source[time] + feedback[control] * last - radius**2 * before
        output[time] = now
        last, before = now, last
    return output


def _smooth(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over 5 ms, so that loudness has no steps."""
    total = np.cumsum(levels, axis=0)
    smooth = levels.copy()
    smooth[_CONTROL:] = (total[_CONTROL:] - total[:-_CONTROL]) / _CONTROL
    return smooth
