"""Songs of sections whose order is known: the same letter is the same music."""

import numpy as np

NOTE_S = 0.5


def made_section(seed: int, seconds: float, sample_rate: int) -> np.ndarray:
    """float32 `(samples,)`: chords of three notes, each another one, that die away."""
    generator = np.random.default_rng(seed)
    samples = round(seconds * sample_rate)
    time_s = np.arange(round(NOTE_S * sample_rate)) / sample_rate
    chords = []
    for _ in range(samples // len(time_s) + 1):
        pitches_hz = 440 * 2 ** ((generator.choice(12, 3, replace=False) - 12) / 12)
        partials_hz = np.outer(pitches_hz, [1, 2, 3]).reshape(-1, 1)
        tones = np.sin(2 * np.pi * partials_hz * time_s) * np.tile([1, 1 / 2, 1 / 3], 3)[:, None]
        chords.append(0.1 * np.exp(-3 * time_s) * tones.sum(axis=0))
    return np.concatenate(chords)[:samples].astype(np.float32)


def made_song(
    order: str, *, sample_rate: int = 8000, section_s: float = 20.0, **seconds: float
) -> np.ndarray:
    """float32 `(samples,)`: the sections that letters of `order` name.

    Parameters
    ----------
    section_s
        how long they are, but for those of which `seconds` says otherwise
    """
    return np.concatenate(
        [made_section(ord(each), seconds.get(each, section_s), sample_rate) for each in order]
    )
