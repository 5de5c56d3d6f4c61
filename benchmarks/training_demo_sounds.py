"""Voices and music that a program can make, for the training of `training_demo.py`.

Voices are those of espeak-ng, reading words that don't exist, with their throats, rooms and
microphones changed. Music is played by instruments drawn at random. Recordings can be made into
others: see `spoken_anew` and `played_anew`. Signals are mono, float32 `(samples,)`, at 16 kHz.
"""

import io
import math
import shutil
import subprocess

import numpy as np
import scipy.signal
import soundfile
import soxr
from numpy.random import Generator

from beamsplitter.audio.synthesis import synthesize_song
from beamsplitter.errors import BeamsplitterError

SAMPLE_RATE = 16_000

LANGUAGES = (
    *("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-us", "en-gb", "en-029"),
    *("de", "nl", "sv", "da", "fr-fr", "it", "es", "pt-br", "ro", "pl", "fi", "hu", "la"),
)
VARIANTS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5"),
    *("Alex", "Andrea", "Annie", "Michael", "Mike", "adam", "anika", "benjamin", "caleb", "david"),
    *("linda", "steph", "victor", "klatt2", "klatt4", "croak", "aunty", "grandpa", "whisper"),
)
ONSETS = "b c ch d f g h j k l m n p qu r s sh t th v w y z bl br cl cr dr fl fr gl gr pl pr sc "
ONSETS += "sk sl sm sn sp st str sw tr tw"
VOWELS = "a e i o u a e i o u ai ay ea ee oa oo ou ow oi au er ar or"
CODAS = "- - - - b d f g k l m n p r s t x ch ck ft ld lk lt mp nd ng nk nt rd rk rn rt sh ss st th"


def require_espeak() -> None:
    """Raises BeamsplitterError if espeak-ng is not installed."""
    if shutil.which("espeak-ng") is None:
        raise BeamsplitterError("espeak-ng is not installed: apt-get install espeak-ng")


def words(chance: Generator, count: int) -> str:
    """Invented words in sentences, since what is said doesn't matter."""
    onsets, vowels, codas = ONSETS.split(), VOWELS.split(), CODAS.replace("-", "").split(" ")
    said = []
    for _ in range(count):
        syllables = chance.choice([1, 1, 2, 2, 3])
        word = "".join(
            chance.choice(onsets) + chance.choice(vowels) + chance.choice(codas)
            for _ in range(syllables)
        )
        said.append(word + chance.choice(["", "", "", "", "", "", ",", ".", "."]))
    return " ".join(said) + "."


def spoken(chance: Generator, seconds: float) -> np.ndarray:
    """A reader drawn at random.

    Raises
    ------
    BeamsplitterError
        espeak-ng doesn't speak
    """
    voice = f"{chance.choice(LANGUAGES)}+{chance.choice(VARIANTS)}"
    speed, pitch = int(chance.integers(120, 210)), int(chance.integers(5, 95))
    said: list[np.ndarray] = []
    while sum(map(len, said)) < 1.3 * seconds * SAMPLE_RATE:
        line = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout"]
        done = subprocess.run(line, input=words(chance, 40).encode(), capture_output=True)
        if done.returncode or not done.stdout:
            raise BeamsplitterError(f"{' '.join(line)} fails: {done.stderr.decode().strip()}")
        samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
        said.append(soxr.resample(samples, rate, SAMPLE_RATE))
    voice_samples = np.concatenate(said)
    # Longer or shorter throats, and pitch that wavers as no machine's does.
    voice_samples = warped(voice_samples, chance, stretch=chance.uniform(0.85, 1.2))
    voice_samples = breathy(voice_samples, chance, share=chance.uniform(0, 0.5))
    voice_samples = with_bass(voice_samples, chance, most_db=30)
    return recorded_elsewhere(voice_samples[: round(seconds * SAMPLE_RATE)], chance)


def spoken_anew(recording: np.ndarray, chance: Generator, seconds: float) -> np.ndarray:
    """A recorded reader with another throat, elsewhere, who begins somewhere in the text."""
    count = round(seconds * SAMPLE_RATE)
    stretch = chance.uniform(0.8, 1.25)
    begun = np.roll(recording, -int(chance.integers(recording.size)))
    voice_samples = warped(np.resize(begun, round(1.2 * stretch * count)), chance, stretch=stretch)
    voice_samples = with_bass(voice_samples, chance, most_db=12)
    return recorded_elsewhere(voice_samples[:count], chance)


def recorded_elsewhere(voice_samples: np.ndarray, chance: Generator) -> np.ndarray:
    """Through another microphone, mostly in a room, with hiss."""
    voice_samples = equalized(voice_samples, chance, deviation_db=4)
    if chance.random() < 0.6:
        voice_samples = in_a_room(voice_samples, chance, wet=chance.uniform(0.05, 0.5))
    hiss = equalized(chance.standard_normal(voice_samples.size), chance, deviation_db=6)
    hiss_level = rms(voice_samples) * 10 ** (-chance.uniform(35, 65) / 20)
    return at_peak(voice_samples + hiss_level * hiss / rms(hiss))


def played_anew(recording: np.ndarray, chance: Generator, seconds: float) -> np.ndarray:
    """Recorded music, higher or lower, elsewhere."""
    count = round(seconds * SAMPLE_RATE)
    stretch = chance.uniform(0.7, 1.4)
    length = round(1.2 * stretch * count)
    piece = warped(np.resize(recording, length), chance, stretch=stretch, wow=0)
    piece = equalized(piece[:count], chance, deviation_db=4)
    if chance.random() < 0.3:
        piece = in_a_room(piece, chance, wet=chance.uniform(0.1, 0.5))
    return at_peak(piece)


def played(chance: Generator, seconds: float) -> np.ndarray:
    """A piece of music without a voice, drawn at random."""
    if chance.random() < 0.3:
        seed = int(chance.integers(2**32))
        song = synthesize_song(duration_s=seconds, sample_rate=SAMPLE_RATE, seed=seed)
        piece = song["accompaniment"].mean(axis=0)
    else:
        piece = _ensemble(chance, round(seconds * SAMPLE_RATE))
    piece = equalized(piece, chance, deviation_db=4)
    if chance.random() < 0.7:
        piece = in_a_room(piece, chance, wet=chance.uniform(0.1, 0.8))
    return at_peak(piece)


# What rooms, microphones and throats do.


def rms(signal: np.ndarray) -> float:
    return math.sqrt(float(np.mean(np.square(signal)))) + 1e-9


def at_peak(signal: np.ndarray, peak: float = 0.7) -> np.ndarray:
    return (signal * (peak / max(float(np.abs(signal).max()), 1e-9))).astype(np.float32)


def warped(
    signal: np.ndarray, chance: Generator, *, stretch: float, wow: float = 0.02
) -> np.ndarray:
    """As from a tape that runs `stretch` times as fast, and unsteadily by a share of `wow`."""
    count = int(signal.size / stretch / 1.05)
    knots = np.arange(0, count + SAMPLE_RATE, SAMPLE_RATE // 12)
    unsteady = 1 + wow * chance.standard_normal(knots.size).clip(-2, 2)
    speed = stretch * np.interp(np.arange(count), knots, unsteady)
    places = np.cumsum(speed).clip(0, signal.size - 1)
    return np.interp(places, np.arange(signal.size), signal)


def breathy(signal: np.ndarray, chance: Generator, *, share: float) -> np.ndarray:
    """With air that has the voice's spectrum and no pitch, most of it in the treble."""
    _, _, spectrum = scipy.signal.stft(signal, SAMPLE_RATE, nperseg=256)
    bins = np.linspace(0, 1, spectrum.shape[0])[:, None]
    turned = spectrum * np.exp(2j * np.pi * chance.random(spectrum.shape))
    amount = share * np.minimum(0.2 + 1.6 * bins, 1)
    _, mixed = scipy.signal.istft((1 - amount) * spectrum + amount * turned, SAMPLE_RATE)
    return np.asarray(mixed[: signal.size])


def equalized(signal: np.ndarray, chance: Generator, *, deviation_db: float) -> np.ndarray:
    """Through a smooth random frequency response, in some cases without bass or treble."""
    octaves = np.log2(np.geomspace(60, SAMPLE_RATE / 2, 10))
    gains_db = chance.normal(0, deviation_db, octaves.size)
    hertz = np.linspace(0, SAMPLE_RATE / 2, 257)
    response_db = np.interp(np.log2(hertz.clip(min=60)), octaves, gains_db)
    if chance.random() < 0.4:
        response_db -= 40 * np.log2((chance.uniform(60, 200) / hertz.clip(min=20)).clip(min=1)) / 2
    if chance.random() < 0.3:
        response_db -= 60 * np.log2((hertz / chance.uniform(3000, 7500)).clip(min=1))
    taps = scipy.signal.firwin2(513, hertz, 10 ** (response_db / 20), fs=SAMPLE_RATE)
    return np.asarray(scipy.signal.oaconvolve(signal, taps, mode="same"))


def with_bass(signal: np.ndarray, chance: Generator, *, most_db: float) -> np.ndarray:
    """With more of what lies below some hundred hertz: near a microphone, voices have it.

    The fundamental of a reader is often the loudest of all harmonics, and weak in espeak-ng's.
    """
    sos = scipy.signal.butter(2, chance.uniform(120, 350), fs=SAMPLE_RATE, output="sos")
    bass = scipy.signal.sosfiltfilt(sos, signal)
    return np.asarray(signal + (10 ** (chance.uniform(0, most_db) / 20) - 1) * bass)


def in_a_room(signal: np.ndarray, chance: Generator, *, wet: float) -> np.ndarray:
    """With decaying noise for an echo, `wet` times as loud as what comes directly."""
    seconds = chance.uniform(0.15, 1.2)
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    echo = chance.standard_normal(times.size) * np.exp(-6.9 * times / seconds)
    echo = scipy.signal.lfilter([1], [1, -chance.uniform(0, 0.6)], echo)  # walls take the treble
    tail = scipy.signal.oaconvolve(signal, echo)[: signal.size]
    return signal + wet * rms(signal) * tail / rms(tail)


# The instruments.

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 8, 11), (0, 2, 4, 7, 9))


def _ensemble(chance: Generator, count: int) -> np.ndarray:
    """One to five instruments that play notes of one scale to one beat, with or without drums."""
    piece = np.zeros(count)
    beat = round(SAMPLE_RATE * chance.uniform(0.3, 0.8))
    scale = np.array(_SCALES[chance.integers(len(_SCALES))]) + int(chance.integers(12))
    chords = chance.integers(0, scale.size, 64)
    for _ in range(chance.integers(1, 6)):
        part = _part(chance, count, beat, scale, chords)
        piece += part / rms(part) * 10 ** (chance.uniform(-12, 0) / 20)
    if chance.random() < 0.4:
        drums = _drums(chance, count, beat)
        piece += drums / rms(drums) * 10 ** (chance.uniform(-15, 0) / 20)
    return piece


def _part(
    chance: Generator, count: int, beat: int, scale: np.ndarray, chords: np.ndarray
) -> np.ndarray:
    """An instrument that plays chords, broken chords or a melody from beginning to end."""
    part = np.zeros(count + 12 * SAMPLE_RATE)
    bright, dark = _period(chance, 1.0), _period(chance, 2.0)
    sustained = chance.random() < 0.5
    attack_s = chance.uniform(0.02, 0.2) if sustained else chance.uniform(0.002, 0.01)
    ring_s = chance.uniform(0.15, 1.5)
    players = int(chance.choice([1, 1, 1, 3])) if sustained else 1
    vibrato = chance.uniform(0, 0.006) if sustained else 0
    lowest = int(chance.choice([28, 40, 48, 52, 60, 67, 72]))
    steps = chance.choice([0.25, 0.5, 0.5, 1, 1, 2, 4], size=3)
    chordal = chance.random() < 0.4
    rest = chance.uniform(0, 0.3)
    bow = chance.uniform(0, 0.05)
    rung, start = int(chance.integers(8)), 0
    while start < count:
        length = max(int(chance.choice(steps) * beat), SAMPLE_RATE // 20)
        root = chords[start // (4 * beat) % chords.size]
        rung = int(np.clip(rung + chance.choice([-4, -2, -1, 0, 1, 2, 4]), 0, 11))
        rungs = root + np.array([0, 2, 4, 7]) if chordal else np.array([root + rung])
        for each in rungs if chance.random() > rest else ():
            octave, degree = divmod(int(each), scale.size)
            hertz = 440 * 2 ** ((lowest + 12 * octave + scale[degree] % 12 - 69) / 12)
            late = start + abs(round(chance.normal(0, 0.01 * SAMPLE_RATE)))
            held = length + round(0.08 * SAMPLE_RATE) if sustained else round(3 * ring_s * 16000)
            held = min(held, 4 * SAMPLE_RATE)
            note = sum(
                _tone(chance, hertz, held, bright, dark, vibrato, players > 1)
                for _ in range(players)
            )
            times = np.arange(held) / SAMPLE_RATE
            shape = np.minimum(times / attack_s, 1) * np.minimum((times[-1] - times) / 0.06, 1)
            if not sustained:
                shape = shape * np.exp(-times / ring_s)
            note = (note + bow * chance.standard_normal(held)) * shape
            part[late : late + held] += note * 10 ** (chance.uniform(-6, 0) / 20)
        start += length
    return part[:count]


def _period(chance: Generator, softness: float) -> np.ndarray:
    """One period of a waveform of 24 harmonics, its first sample repeated at the end."""
    number = np.arange(1, 25)
    softness = softness + chance.uniform(0, 1.5)
    amplitudes = number**-softness * np.exp(chance.normal(0, 0.8, number.size))
    amplitudes[1::2] *= chance.choice([1, 1, 0.1])  # as in a clarinet
    spectrum = np.zeros(513, complex)
    spectrum[1:25] = amplitudes * np.exp(2j * np.pi * chance.random(number.size))
    period = np.fft.irfft(spectrum)
    return np.append(period, period[0]) / rms(period)


def _tone(
    chance: Generator,
    hertz: float,
    count: int,
    bright: np.ndarray,
    dark: np.ndarray,
    vibrato: float,
    detuned: bool,
) -> np.ndarray:
    """A tone that begins bright and becomes dark; above 660 Hz dark alone, against aliases."""
    times = np.arange(count) / SAMPLE_RATE
    if detuned:
        hertz = hertz * (1 + chance.normal(0, 0.003))
    wave = np.sin(2 * np.pi * (chance.uniform(4.5, 6.5) * times + chance.random()))
    phase = np.cumsum(hertz * (1 + vibrato * wave)) / SAMPLE_RATE + chance.random()
    place = (phase % 1) * (dark.size - 1)
    below = place.astype(np.intp)
    part = place - below
    tone = dark[below] + part * (dark[below + 1] - dark[below])
    if hertz < 330:
        start = bright[below] + part * (bright[below + 1] - bright[below])
        tone += np.exp(-times / 0.3) * (start - tone)
    return tone if hertz < 330 else _without_aliases(tone, hertz)


def _without_aliases(tone: np.ndarray, hertz: float) -> np.ndarray:
    """High tones keep few harmonics: a low pass tames those that would fold back."""
    cutoff = min(6 * hertz, 7000)
    taps = scipy.signal.butter(2, cutoff, fs=SAMPLE_RATE, output="sos")
    return np.asarray(scipy.signal.sosfilt(taps, tone))


def _drums(chance: Generator, count: int, beat: int) -> np.ndarray:
    """Bursts of filtered noise in a pattern that repeats."""
    drums = np.zeros(count + SAMPLE_RATE)
    for _ in range(chance.integers(1, 4)):
        low = chance.uniform(40, 4000)
        band = (low, min(low * chance.uniform(1.5, 6), 7800))
        times = np.arange(round(chance.uniform(0.05, 0.4) * SAMPLE_RATE)) / SAMPLE_RATE
        sos = scipy.signal.butter(2, band, "bandpass", fs=SAMPLE_RATE, output="sos")
        hit = scipy.signal.sosfilt(sos, chance.standard_normal(times.size))
        hit *= np.exp(-times / (times[-1] / 5)) * np.minimum(1, times[::-1] / 0.01)
        hit /= rms(hit)
        pattern = chance.random(16) < chance.uniform(0.1, 0.7)
        for index, start in enumerate(range(0, count, beat // 4)):
            if pattern[index % 16]:
                gain = 10 ** (chance.uniform(-6, 0) / 20)
                drums[start : start + hit.size] += gain * hit
    return drums[:count]
