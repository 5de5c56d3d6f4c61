"""Titles are drawn in the fonts of this machine where matplotlib's own lacks their letters."""

import unicodedata
import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from beamsplitter.audio import fonts
from beamsplitter.audio.fonts import text_line

NIGHT, RUN, MUSIC = "夜", "駆", "楽"


def build_font(path, characters, *, family, width=1000):
    """A font in which each of the characters is a block of its own height."""
    glyphs, advances = {}, {}
    for index, name in enumerate([".notdef", *(f"u{ord(c):X}" for c in characters)]):
        pen = TTGlyphPen(None)
        height = 200 + 150 * index
        for number, corner in enumerate(((0, 0), (0, height), (width, height), (width, 0))):
            (pen.lineTo if number else pen.moveTo)(corner)
        pen.closePath()
        glyphs[name], advances[name] = pen.glyph(), (width, 0)
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap({ord(c): f"u{ord(c):X}" for c in characters})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(advances)
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture(autouse=True)
def only_own_fonts(monkeypatch):
    """No font of the machine that the tests run on, and no warning about a missing letter."""
    own = [e for e in font_manager.fontManager.ttflist if e.fname.startswith(fonts._OWN_FOLDER)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    forget()


def forget():
    fonts._coverages.cache_clear()
    fonts._fonts_with.cache_clear()


def install(*paths):
    for path in paths:
        font_manager.fontManager.addfont(path)
    forget()


def ink(text, room=2000.0):
    return text_line(text, points=15, dpi=72, room=room).ink


def same(first, second):
    return first.shape == second.shape and bool((first == second).all())


def test_letters_that_no_font_has_are_boxes():
    assert same(ink(f"a {NIGHT}{RUN}"), ink("a □□"))


def test_letters_come_from_a_font_that_has_them(tmp_path):
    boxes = ink(f"{NIGHT} {RUN}")
    install(build_font(tmp_path / "a.ttf", NIGHT, family="A"))
    half = ink(f"{NIGHT} {RUN}")
    assert not same(half, boxes)
    assert same(half, ink(f"{NIGHT} □"))
    install(build_font(tmp_path / "b.ttf", RUN, family="B", width=700))
    assert not same(ink(f"{NIGHT} {RUN}"), half)


def test_a_font_that_has_all_letters_is_taken_before_several_that_have_some(tmp_path):
    install(
        build_font(tmp_path / "a.ttf", NIGHT, family="A Sans"),
        build_font(tmp_path / "b.ttf", NIGHT + RUN, family="B", width=700),
    )
    assert fonts._printable(NIGHT + RUN)[1] == (str(tmp_path / "b.ttf"),)
    assert fonts._printable(NIGHT)[1] == (str(tmp_path / "a.ttf"),)
    assert fonts._printable(NIGHT + RUN + MUSIC) == (f"{NIGHT}{RUN}□", (str(tmp_path / "b.ttf"),))


def test_the_order_in_which_fonts_were_found_does_not_matter(tmp_path, monkeypatch):
    install(*(build_font(tmp_path / f"{name}.ttf", NIGHT, family=name) for name in "CAB"))
    found = ink(NIGHT)
    backwards = font_manager.fontManager.ttflist[::-1]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", backwards)
    forget()
    assert same(ink(NIGHT), found)
    assert fonts._printable(NIGHT)[1] == (str(tmp_path / "A.ttf"),)


def test_our_own_font_is_left_for_no_other(tmp_path):
    plain = ink("song é")
    install(build_font(tmp_path / "latin.ttf", "song é", family="A"))
    assert same(ink("song é"), plain)


@pytest.mark.parametrize("damage", [lambda data: data[:300], lambda data: b"", None])
def test_fonts_that_cannot_be_read_are_passed_over(tmp_path, damage):
    path = tmp_path / "a.ttf"
    install(build_font(path, NIGHT, family="A"))
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    assert same(ink(NIGHT), ink("□"))


def test_a_font_that_goes_away_later_costs_boxes(tmp_path):
    path = tmp_path / "gone.ttf"
    install(build_font(path, NIGHT, family="A"))
    fonts._coverages()
    path.unlink()
    assert same(ink(f"{NIGHT} a"), ink("□ a"))


def test_letters_of_mathematics_need_no_font_of_the_machine():
    assert fonts._printable("𝓢𝓸𝓷𝓰") == ("𝓢𝓸𝓷𝓰", (fonts._OWN_SYMBOLS,))


@pytest.mark.parametrize("text", ["", "fishin.ogg – vocals", "é ñ Ω Ж → ∞", "العربية", "עברית"])
def test_what_our_own_font_has_looks_at_no_other(text):
    ink(text)
    assert fonts._coverages.cache_info().misses == 0
    ink(NIGHT)
    assert fonts._coverages.cache_info().misses == 1


def test_coverage_is_that_of_the_character_map():
    rng = np.random.default_rng(1)
    for coverage in fonts._coverages():
        codes = font_manager.get_font(coverage.path).get_charmap()
        some = np.concatenate([rng.integers(0, 0x20000, 2000), list(codes)[:2000], [0, 0x10FFFF]])
        np.testing.assert_array_equal(coverage.has(some), [int(code) in codes for code in some])


def test_arabic_is_shaped_where_matplotlib_can():
    joined = ink("سس").shape[1]
    apart = 2 * ink("س").shape[1]
    assert (joined < apart) == fonts._SHAPES_TEXT


def test_a_line_takes_no_more_than_its_room_and_keeps_both_ends(tmp_path):
    install(build_font(tmp_path / "a.ttf", NIGHT, family="A"))
    for text in ("W" * 300, NIGHT * 300, "e\u0301" * 300, "name " * 100 + "2"):
        for room in (40, 100, 333):
            assert ink(text, room).shape[1] <= room + 1
    assert not same(ink("name " * 100 + "1", 300), ink("name " * 100 + "2", 300))


def test_no_mark_of_a_letter_that_was_cut_off_is_left():
    cut = "ab\u0301\u0302c"
    for start in range(len(cut)):
        kept = fonts._from_a_letter(cut[start:])
        assert kept and not unicodedata.category(kept[0]).startswith("M")
        assert cut.endswith(kept)
