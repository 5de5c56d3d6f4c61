"""Songs that a program can make itself, with the true stems, for demonstrations and for tuning.

The accompaniment is a loop of four chords with bass and drums, played a little differently each
time. The voice sings a melody that doesn't repeat with it: pulses through changing vowels, with
vibrato, glides, consonants and breaths. The seed chooses tempo, key, chords, rhythm, timbre and
the singer's register.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.signal
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

__all__ = ["synthesize_song"]

FloatArray = NDArray[np.float32]

_MIX_PEAK = 0.85
_LOWEST_RATE = 8000
_BEATS = 4  # in a bar
_CONTROL_RATE = 500  # Hz, of pitch, loudness and vowel curves
_FADE_SECONDS = 0.02

# Chords as (semitones above the key, third in semitones).
_MAJOR, _MINOR = 4, 3
_PROGRESSIONS = (
    ((0, _MAJOR), (7, _MAJOR), (9, _MINOR), (5, _MAJOR)),
    ((0, _MAJOR), (9, _MINOR), (5, _MAJOR), (7, _MAJOR)),
    ((9, _MINOR), (5, _MAJOR), (0, _MAJOR), (7, _MAJOR)),
    ((2, _MINOR), (7, _MAJOR), (0, _MAJOR), (9, _MINOR)),
    ((0, _MINOR), (8, _MAJOR), (3, _MAJOR), (10, _MAJOR)),
    ((0, _MINOR), (5, _MINOR), (8, _MAJOR), (7, _MAJOR)),
)
_MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)
_MINOR_SCALE = (0, 2, 3, 5, 7, 8, 10)

# Eighth notes of a bar.
_STRUMS = ("x-x-x-x-", "x--x--x-", "x-xx-xx-", "xxxxxxxx", "x---x---")
_BASSES = ("x---x---", "x--x--x-", "x-x-x-x-", "x--xx--x")
_KICKS = ("x---x---", "x--xx---", "x-x-x---", "x---x-x-")
_SNARE = "--x---x-"

# Formants of a, e, i, o, u (Hz for a low voice), their bandwidths and gains in dB.
_FORMANTS = (
    (700, 1150, 2500, 3300),
    (480, 1750, 2450, 3350),
    (290, 2050, 2700, 3400),
    (450, 820, 2450, 3300),
    (330, 720, 2350, 3250),
)
_BANDWIDTHS = (80, 100, 130, 180)
_FORMANT_GAINS_DB = (0, -5, -9, -13)


@dataclass(frozen=True)
class _Score:
    """What is settled for the whole song."""

    rate: int
    frames: int
    beat: float  # seconds
    key: int  # semitones above C
    chords: tuple[tuple[int, int], ...]
    strum: str
    bass: str
    kick: str
    hats_per_beat: int
    softness: float  # how fast the chords' harmonics fall
    ring: float  # seconds
    high_voice: bool

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    @property
    def bar(self) -> float:
        return _BEATS * self.beat

    @property
    def bars(self) -> int:
        return math.ceil(self.seconds / self.bar)


def synthesize_song(
    *,
    duration_s: float = 30.0,
    sample_rate: int = 44100,
    seed: int = 0,
    tempo_bpm: float | None = None,
    key: int | None = None,
    vocal_level_db: float = 0.0,
) -> dict[str, FloatArray]:
    """Return the stems of a song; their sum is the mixture.

    Parameters
    ----------
    duration_s, sample_rate
        Length in seconds and frames per second, at least 8000.
    seed
        The same seed gives the same song.
    tempo_bpm, key
        Beats a minute, and semitones of the key above C; by default chosen by the seed.
    vocal_level_db
        The RMS of the vocals relative to that of the accompaniment.

    Returns
    -------
    ``{"accompaniment": …, "vocals": …}``, each stereo float32 of shape ``(2, frames)``. The
    mixture and both stems peak at 0.85 or below.
    """
    frames = round(duration_s * sample_rate)
    if frames < 1:
        raise ValueError(f"a song of {duration_s} s has no frames")
    if sample_rate < _LOWEST_RATE:
        raise ValueError(f"the sample rate must be at least {_LOWEST_RATE} Hz, not {sample_rate}")
    if tempo_bpm is not None and not tempo_bpm > 0:
        raise ValueError(f"the tempo must be positive, not {tempo_bpm}")
    score_chance, band_chance, voice_chance = (
        Generator(PCG64(sequence)) for sequence in SeedSequence(seed).spawn(3)
    )
    score = _compose(score_chance, frames, sample_rate, tempo_bpm, key)
    accompaniment = _play(score, band_chance)
    vocals = _sing(score, voice_chance)
    fade = np.minimum(np.arange(frames, 0, -1) / (_FADE_SECONDS * sample_rate), 1.0)
    accompaniment *= fade
    vocals *= fade
    vocals *= 10 ** (vocal_level_db / 20) * _rms(accompaniment) / max(_rms(vocals), 1e-9)
    peak = max(float(np.abs(x).max()) for x in (accompaniment, vocals, accompaniment + vocals))
    gain = _MIX_PEAK / max(peak, 1e-9)
    return {
        "accompaniment": (accompaniment * gain).astype(np.float32),
        "vocals": (vocals * gain).astype(np.float32),
    }


def _rms(signal: NDArray[Any]) -> float:
    return math.sqrt(float(np.mean(np.square(signal))))


def _compose(
    chance: Generator, frames: int, rate: int, tempo_bpm: float | None, key: int | None
) -> _Score:
    drawn_tempo, drawn_key = chance.uniform(84, 132), int(chance.integers(12))
    return _Score(
        rate=rate,
        frames=frames,
        beat=60 / (drawn_tempo if tempo_bpm is None else tempo_bpm),
        key=drawn_key if key is None else key,
        chords=_PROGRESSIONS[chance.integers(len(_PROGRESSIONS))],
        strum=_STRUMS[chance.integers(len(_STRUMS))],
        bass=_BASSES[chance.integers(len(_BASSES))],
        kick=_KICKS[chance.integers(len(_KICKS))],
        hats_per_beat=int(chance.choice([2, 2, 4])),
        softness=chance.uniform(1.0, 1.8),
        ring=chance.uniform(0.5, 1.4),
        high_voice=bool(chance.integers(2)),
    )


def _hertz(semitones: float | NDArray[Any]) -> Any:
    """The frequency of a MIDI note number."""
    return 440.0 * 2.0 ** ((np.asarray(semitones) - 69) / 12)


# The band: each sound is made once and struck many times.


def _play(score: _Score, chance: Generator) -> NDArray[np.float64]:
    band = np.zeros((2, score.frames))
    chords = [_chord(score, root, third) for root, third in score.chords]
    basses = [_bass_note(score, root) for root, _ in score.chords]
    kick, snare, hat = _kick(score), _snare(score, chance), _hat(score, chance)
    hats = "x" * (score.hats_per_beat * _BEATS)
    for bar in range(score.bars):
        start = bar * score.bar
        chord, bass = chords[bar % len(chords)], basses[bar % len(basses)]
        _strike(band, score, chance, start, score.strum, chord, 0.30)
        _strike(band, score, chance, start, score.bass, bass, 0.55)
        _strike(band, score, chance, start, score.kick, kick, 0.80)
        _strike(band, score, chance, start, _SNARE, snare, 0.45)
        _strike(band, score, chance, start, hats, hat, 0.16)
    return band


def _strike(
    band: NDArray[np.float64],
    score: _Score,
    chance: Generator,
    bar_start: float,
    pattern: str,
    sound: NDArray[np.float64],
    level: float,
) -> None:
    """Add ``sound`` to the band where the bar's pattern says, humanly early or late."""
    lateness = chance.normal(0, 0.003, len(pattern))
    gains_db = chance.normal(0, 0.8, len(pattern))
    for step in range(len(pattern)):
        if pattern[step] != "x":
            continue
        time = bar_start + step * score.bar / len(pattern) + lateness[step]
        first = max(round(time * score.rate), 0)
        length = min(sound.shape[1], score.frames - first)
        if length > 0:
            gain = level * 10 ** (gains_db[step] / 20)
            band[:, first : first + length] += gain * sound[:, :length]


def _times(score: _Score, seconds: float) -> NDArray[np.float64]:
    return np.arange(round(seconds * score.rate)) / score.rate


def _struck_note(
    score: _Score, hertz: float, ring: float, softness: float, harmonics: int
) -> NDArray[np.float64]:
    """Harmonics that decay the faster the higher they are."""
    times = _times(score, 2.5 * ring)
    number = np.arange(1, harmonics + 1)
    number = number[number * hertz < 0.45 * score.rate]
    stretched = hertz * number * np.sqrt(1 + 2e-4 * number**2)
    exponent = (2j * np.pi * stretched - (2 + 0.6 * number) / ring) / score.rate
    tone = _sum_of_exponentials(1 / number**softness, exponent, len(times))
    shape = np.minimum(times / 0.004, 1) * np.minimum((times[-1] - times) / 0.05, 1)
    return tone * shape


def _sum_of_exponentials(
    amplitudes: NDArray[Any], exponents: NDArray[np.complex128], count: int
) -> NDArray[np.float64]:
    """The imaginary part of ``Σ a·exp(e·n)`` for n below ``count``, as a product of two tables."""
    block = math.isqrt(count) + 1
    steps = np.arange(block)[:, np.newaxis]
    coarse = amplitudes * np.exp(exponents * block * steps)
    fine = np.exp(exponents * steps)
    return np.asarray((coarse @ fine.T).imag.ravel()[:count])


def _chord(score: _Score, root: int, third: int) -> NDArray[np.float64]:
    lowest = 48 + (score.key + root) % 12
    notes = (lowest, lowest + third, lowest + 7, lowest + 12)
    pans = (-0.6, 0.2, 0.6, -0.2)
    tones = [_struck_note(score, float(_hertz(n)), score.ring, score.softness, 14) for n in notes]
    return np.sum([_panned(t, p) for t, p in zip(tones, pans, strict=True)], axis=0)


def _bass_note(score: _Score, root: int) -> NDArray[np.float64]:
    hertz = float(_hertz(28 + (score.key + root - 4) % 12))
    return _panned(_struck_note(score, hertz, 0.9, 1.3, 8), 0.0)


def _kick(score: _Score) -> NDArray[np.float64]:
    times = _times(score, 0.35)
    phase = 2 * np.pi * (48 * times + 110 * 0.035 * (1 - np.exp(-times / 0.035)))
    return _panned(np.sin(phase) * np.exp(-times / 0.09), 0.0)


def _snare(score: _Score, chance: Generator) -> NDArray[np.float64]:
    times = _times(score, 0.3)
    rattle = _band_noise(score, chance, len(times), 700, 7000)
    tone = np.sin(2 * np.pi * 185 * times) * np.exp(-times / 0.05)
    return _panned(rattle * np.exp(-times / 0.08) + 0.6 * tone, 0.1)


def _hat(score: _Score, chance: Generator) -> NDArray[np.float64]:
    times = _times(score, 0.12)
    noise = _band_noise(score, chance, len(times), 6500, 15000)
    return _panned(noise * np.exp(-times / 0.025), 0.4)


def _band_noise(
    score: _Score, chance: Generator, count: int, lowest: float, highest: float
) -> NDArray[np.float64]:
    """Noise of about unit RMS between two frequencies, both moved down at low sample rates."""
    highest = min(highest, 0.45 * score.rate)
    lowest = min(lowest, highest / 2)
    filters = scipy.signal.butter(2, (lowest, highest), "bandpass", fs=score.rate, output="sos")
    noise = scipy.signal.sosfilt(filters, chance.standard_normal(count))
    return np.asarray(noise * math.sqrt(score.rate / 2 / (highest - lowest)))


def _panned(sound: NDArray[np.float64], pan: float) -> NDArray[np.float64]:
    """Stereo with constant power; ``pan`` from -1 (left) to 1 (right)."""
    angle = (pan + 1) * math.pi / 4
    return np.stack([math.cos(angle) * sound, math.sin(angle) * sound])


# The singer.


@dataclass(frozen=True)
class _Note:
    start: float  # seconds
    stop: float
    pitch: float  # MIDI note number
    vowel: int
    consonant: bool
    last: bool  # of its phrase


def _sing(score: _Score, chance: Generator) -> NDArray[np.float64]:
    notes = _melody(score, chance)
    if not notes:
        return np.zeros((2, score.frames))
    control = np.arange(math.ceil(score.seconds * _CONTROL_RATE) + 1) / _CONTROL_RATE
    pitch = _pitch_curve(notes, control, chance)
    loudness = _loudness_curve(notes, control)
    source = _glottal_source(score, pitch, loudness, control, chance)
    mouth = _through_vowels(score, source, notes, control)
    mouth += _consonants_and_breaths(score, notes, chance) * 1.5 * _rms(mouth)
    return _panned(mouth, -0.05)


def _melody(score: _Score, chance: Generator) -> list[_Note]:
    """Phrases of some notes, drawn without regard to the loop, with a breath between them."""
    scale = _MINOR_SCALE if (0, _MINOR) in score.chords else _MAJOR_SCALE
    lowest = (59 if score.high_voice else 48) + (score.key + 5) % 12 - 5
    ladder = [lowest + octave * 12 + step for octave in range(2) for step in scale][:9]
    notes: list[_Note] = []
    time = min(score.bar, 0.25 * score.seconds) + score.beat * chance.uniform(0, 1)
    rung = int(chance.integers(len(ladder)))
    while time < score.seconds:
        count = int(chance.integers(4, 11))
        for i in range(count):
            length = score.beat * chance.choice([0.5, 0.5, 1, 1, 1.5, 2]) * chance.normal(1, 0.03)
            length *= 1.6 if i == count - 1 else 1.0
            rung += int(chance.choice([-3, -2, -1, -1, 0, 1, 1, 2, 3]))
            rung = int(np.clip(rung, 0, len(ladder) - 1))
            vowel, consonant = int(chance.integers(len(_FORMANTS))), chance.random() < 0.4
            pitch = ladder[rung] + chance.normal(0, 0.1)
            last = i == count - 1
            if time < score.seconds:
                notes.append(_Note(time, time + length, pitch, vowel, consonant, last))
            time += length
        time += score.beat * chance.uniform(0.6, 1.8)
    return notes


def _note_index(notes: list[_Note], control: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each moment the note that is or was sung last (the first one before it)."""
    starts = np.array([note.start for note in notes])
    return np.maximum(np.searchsorted(starts, control, side="right") - 1, 0)


def _smooth(curve: NDArray[Any], seconds: float) -> NDArray[np.float64]:
    width = max(round(4 * seconds * _CONTROL_RATE), 3)
    kernel = scipy.signal.windows.hann(width + 2)[1:-1]
    padded = np.pad(curve, (width // 2, (width - 1) // 2), mode="edge")
    return np.asarray(np.convolve(padded, kernel / kernel.sum(), mode="valid"))


def _pitch_curve(
    notes: list[_Note], control: NDArray[np.float64], chance: Generator
) -> NDArray[np.float64]:
    """MIDI note numbers: glides between notes, vibrato that sets in late, and drift."""
    index = _note_index(notes, control)
    held = control - np.array([note.start for note in notes])[index]
    glide = _smooth(np.array([note.pitch for note in notes])[index], 0.03)
    speed = _smooth(chance.normal(5.6, 1.5, len(control)), 0.2)
    depth = 0.45 * np.clip((held - 0.15) / 0.35, 0, 1)
    vibrato = _smooth(depth, 0.03) * np.sin(2 * np.pi * np.cumsum(speed) / _CONTROL_RATE)
    return glide + vibrato + _smooth(chance.normal(0, 0.8, len(control)), 0.03)


def _loudness_curve(notes: list[_Note], control: NDArray[np.float64]) -> NDArray[np.float64]:
    index = _note_index(notes, control)
    starts, stops = np.array([[note.start, note.stop] for note in notes]).T
    since, left = control - starts[index], stops[index] - control
    sung = (since >= 0) & (left > 0)
    swell = 0.75 + 0.25 * np.sin(np.pi * np.clip(since / (stops - starts)[index], 0, 1))
    gap = 1 - 0.6 * np.exp(-since.clip(0) / 0.03)
    return _smooth(sung * swell * gap, 0.012)


def _glottal_source(
    score: _Score,
    pitch: NDArray[np.float64],
    loudness: NDArray[np.float64],
    control: NDArray[np.float64],
    chance: Generator,
) -> NDArray[np.float64]:
    """Pulses with all harmonics below the Nyquist frequency, and a little air."""
    times = np.arange(score.frames) / score.rate
    hertz = np.interp(times, control, _hertz(pitch))
    cycles = np.cumsum(hertz) / score.rate
    table = _pulse(harmonics=max(int(0.45 * score.rate / hertz.max()), 1))
    place = (cycles % 1.0) * (len(table) - 1)
    below = place.astype(np.intp)
    pulses = table[below] + (place - below) * (table[below + 1] - table[below])
    air = 0.04 * chance.standard_normal(score.frames)
    return np.interp(times, control, loudness) * (pulses + air)


def _pulse(harmonics: int) -> NDArray[np.float64]:
    """One period of a glottal pulse, its first sample repeated at the end."""
    size = 1 << max(math.ceil(math.log2(harmonics * 16)), 11)
    spectrum = np.zeros(size // 2 + 1, dtype=np.complex128)
    number = np.arange(1, harmonics + 1)
    spectrum[1 : harmonics + 1] = number**-1.2 * np.exp(0.4j * number**0.5)
    period = np.fft.irfft(spectrum)
    period /= np.sqrt(np.mean(period**2))
    return np.append(period, period[0])


def _through_vowels(
    score: _Score, source: NDArray[np.float64], notes: list[_Note], control: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cross-fade the source filtered by one vowel into the next."""
    times = np.arange(score.frames) / score.rate
    vowels = np.array([note.vowel for note in notes])[_note_index(notes, control)]
    mouth = np.zeros(score.frames)
    for vowel in np.unique(vowels):
        share = np.interp(times, control, _smooth(vowels == vowel, 0.025))
        mouth += share * _vowel(score, source, int(vowel))
    return mouth


def _vowel(score: _Score, source: NDArray[np.float64], vowel: int) -> NDArray[np.float64]:
    """Parallel resonances, their signs alternating as in a throat."""
    stretch = 1.15 if score.high_voice else 1.0  # a shorter throat
    numerator, denominator = np.zeros(1), np.ones(1)
    resonances = zip(_FORMANTS[vowel], _BANDWIDTHS, _FORMANT_GAINS_DB, strict=True)
    for i, (formant, bandwidth, gain_db) in enumerate(resonances):
        hertz = formant * stretch
        if hertz > 0.45 * score.rate:
            continue
        peak, resonance = scipy.signal.iirpeak(hertz, hertz / bandwidth, fs=score.rate)
        scaled = peak * (-1) ** i * 10 ** (gain_db / 20)
        numerator = np.polyadd(np.polymul(numerator, resonance), np.polymul(scaled, denominator))
        denominator = np.polymul(denominator, resonance)
    return np.asarray(scipy.signal.lfilter(numerator, denominator, source))


def _consonants_and_breaths(
    score: _Score, notes: list[_Note], chance: Generator
) -> NDArray[np.float64]:
    """Noise of up to unit RMS: an s before some notes, an intake of air before each phrase."""
    hiss = np.zeros(score.frames)
    after_pause = [True, *(note.last for note in notes[:-1])]
    for note, first in zip(notes, after_pause, strict=True):
        if note.consonant:
            length = chance.uniform(0.06, 0.12)
            _add_noise(hiss, score, chance, note.start - 0.7 * length, length, (4500, 9000), 0.5)
        if first:
            length = chance.uniform(0.25, 0.4)
            start = note.start - length - 0.08
            _add_noise(hiss, score, chance, start, length, (900, 4000), 0.08)
    return hiss


def _add_noise(
    target: NDArray[np.float64],
    score: _Score,
    chance: Generator,
    start: float,
    seconds: float,
    band: tuple[float, float],
    level: float,
) -> None:
    count = round(seconds * score.rate)
    noise = _band_noise(score, chance, count, *band) * scipy.signal.windows.hann(count)
    first = max(round(start * score.rate), 0)
    length = min(count, len(target) - first)
    if length > 0:
        target[first : first + length] += level * noise[:length]
