"""The results page in a real browser: what it shows and plays, and that it is fit to be seen."""

import base64
import contextlib
import http.server
import itertools
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import result_pages
import soundfile
from axe_playwright_python.sync_playwright import Axe
from conftest import Command
from playwright.sync_api import Browser, Page, expect, sync_playwright
from programs import find_program
from result_pages import SAMPLE_RATE, made_stems, plain_row, write_recording, write_run

HOSTILE = (
    '<img src=x onerror="document.title=1">',
    "</script><script>document.title=2</script>",
    "\"quotes\" & 'more' `of` ${them}",
    "right \u202eto left\u202c and #?% signs",
    "long " + "x" * 300,
)
DURATION_S = 21.3
REAL_S = 21.0  # more than a chunk
CHUNK_S = 5.0
TIMEOUT_MS = 15_000


class Opener:
    """`open_page(index, "#recording=…", width=360, scheme="dark")`."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.contexts = contextlib.ExitStack()
        self.faults: list[str] = []
        self.requests: list[str] = []

    def __call__(
        self,
        index: Path | str,
        address: str = "",
        *,
        width: int = 1280,
        scheme: Literal["light", "dark"] = "light",
        has_touch: bool = False,
    ) -> Page:
        context = self.browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",
            has_touch=has_touch,
        )
        self.contexts.callback(context.close)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", lambda message: self.faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.faults.append(f"{error} {error.stack}"))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto((index.as_uri() if isinstance(index, Path) else index) + address)
        return page

    def loaded(self, pattern: str) -> list[str]:
        """Names of the files that were asked for, those that match."""
        found = [each.partition("?")[0].rpartition("/")[2] for each in self.requests]
        return [name for name in found if re.match(pattern, name)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_program("chromium", package="chromium")
    with sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Opener]:
    """Opens pages, in which nothing may go wrong."""
    opener = Opener(browser)
    with opener.contexts:
        yield opener
    assert opener.faults == []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of seven recordings, two of which have sound, and of two failures."""
    out = tmp_path_factory.mktemp("results")
    rows, facts = zip(
        write_recording(out, "albums/Long Way", made_stems(DURATION_S)),
        write_recording(out, "Short", made_stems(4.0, seed=3)),
        strict=True,
    )
    rows[0]["scores"] = {"background": {"si_sdr": 7.2, "sdr": 8.0}}
    rows[0]["labels"] = [{"label": "music", "share": 0.75}, {"label": "speech", "share": 0.25}]
    facts[0]["labels"] = [
        {"start_s": 0, "end_s": 16, "label": "music", "confidence": 0.9},
        {"start_s": 16, "end_s": 21.3, "label": "speech"},
    ]
    facts[0]["choruses"] = [{"start_s": 6.0, "duration_s": 4.0}]
    levels = {"mixture": -10.0, "background": None, "foreground": -10.0}
    others = [
        plain_row(f"tape {number}", duration_s=60.0 * number, levels=levels)
        for number in range(1, 6)
    ]
    failures = [
        {
            "element": "broken.mp3",
            "step": "LoadAudio",
            "exception": "AudioError",
            "message": "broken.mp3 holds no audio: is it whole?",
        },
        {
            "element": "net.wav",
            "step": "RunInference",
            "exception": "ValueError",
            "message": "net.wav has 9 channels",
        },
    ]
    plain_facts = {"manifest": {"format": 2, "files": []}, "labels": [], "choruses": []}
    return write_run(
        out,
        [*rows, *others],
        [*facts, *[plain_facts] * len(others)],
        failures,
        measures=["si_sdr", "sdr"],
        has_labels=True,
    )


@pytest.fixture(scope="module")
def real_runs(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """Two runs over one recording at 48 kHz, in folders "repeating" and "hpss"; "both" compares."""
    folder = tmp_path_factory.mktemp("runs")
    stems = made_stems(REAL_S)
    for name, samples in {"mixture": sum(stems.values()), **stems}.items():
        path = folder / ("data" if name == "mixture" else "true/song") / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples.T, SAMPLE_RATE, subtype="PCM_16")
    (folder / "data/mixture.wav").rename(folder / "data/song.wav")
    (folder / "data/broken.mp3").write_text("no sound")
    options = ("--references", folder / "true/{recording}", "-O", "scores.measures=[si_sdr]")
    for name, more in {"repeating": options, "hpss": ("--separator", "hpss")}.items():
        common = ("--no-plots", "--report", "--workers", "1")
        done = command("separate", folder / "data", "-o", folder / name, *common, *more)
        assert done.returncode == 1, done.stderr
    done = command("report", folder / "repeating", folder / "hpss", "--to", folder / "both")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two runs over one recording that both have, and one that only the first has."""
    out = tmp_path_factory.mktemp("compared")
    stems = made_stems(8.0)
    for name, names, score in (("a", ("voice", "rest"), 5.0), ("b", ("rest", "voice"), 7.5)):
        # What "a" takes for the voice is the background, and the other way round.
        own = dict(zip(names, stems.values(), strict=True))
        row, facts = write_recording(out / name, "song", own)
        row["scores"] = {"voice": {"si_sdr": score}}
        rows, all_facts = [row], [facts]
        if name == "a":
            rows.append(plain_row("alone"))
            all_facts.append({"manifest": {"files": []}, "labels": [], "choruses": []})
        write_run(out / name, rows, all_facts, stems=["voice", "rest"], measures=["si_sdr"])
    runs = [{"name": "nn-filter", "path": "a"}, {"name": "hpss", "path": "b"}]
    result_pages.receive(out / "report" / "run.js", {"format": 1, "compare": runs})
    return result_pages.write_page(out)


@contextlib.contextmanager
def served(folder: Path, *, signature: str = "") -> Iterator[str]:
    """The address of a page on a static server, which gives out what is asked for with a query."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if signature in self.path:
                super().do_GET()
            else:
                self.send_error(403)

        def log_message(self, *arguments: object) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def address(results: Path) -> Iterator[str]:
    """The same page from a static server."""
    with served(results.parent) as address:
        yield address


def names(page: Page) -> list[str]:
    expect(page.locator(".list:visible tbody tr").first).to_be_visible()
    return page.locator(".list:visible tbody th").all_inner_texts()


def position_s(page: Page) -> float:
    return float(page.get_by_role("slider", name="Position").get_attribute("aria-valuenow") or "")


def level_db(page: Page, name: str = "Level") -> float:
    meter = page.get_by_role("meter", name=name, exact=True)
    return float(meter.get_attribute("aria-valuenow") or "")


def wait_for_level(page: Page, name: str, *, sounds: bool) -> None:
    """Until the meter of a signal shows that it sounds, or that it does not."""
    value = "(meter) => Number(meter.getAttribute('aria-valuenow'))"
    page.wait_for_function(
        f"([name, sounds]) => [...document.querySelectorAll('[role=meter]')].some((meter) => "
        f"meter.getAttribute('aria-label') === name && (({value})(meter) > -55) === sounds)",
        arg=[name, sounds],
    )


def wait_for_position(page: Page, *, after_s: float, before_s: float = 1e9) -> None:
    page.wait_for_function(
        "([after, before]) => { const now = beamsplitter.shown.player.position_s;"
        " return now > after && now < before; }",
        arg=[after_s, before_s],
    )


def open_long(open_page: Opener, index: Path | str, **options: Any) -> Page:
    page = open_page(index, "#recording=albums%2FLong+Way&row=0", **options)
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    return page


def test_the_overview_has_the_run_in_numbers(open_page: Opener, results: Path) -> None:
    page = open_page(results)
    expect(page.get_by_role("heading", name="weekend")).to_be_visible()
    numbers = page.locator(".numbers").inner_text()
    assert re.search(r"Recordings\s+7\b", numbers)
    assert re.search(r"Failures\s+2\b", numbers)
    assert re.search(r"Speed\s+0.4 × real time", numbers)
    expect(page.get_by_role("row", name=re.compile("Long Way"))).to_contain_text("0:21")
    expect(page.get_by_role("row", name=re.compile("Long Way"))).to_contain_text("music 75 %")
    expect(page.get_by_role("row", name=re.compile("tape 1"))).to_contain_text("silent")
    page.get_by_text("Versions").click()
    expect(page.get_by_text("3.11.7")).to_be_visible()


def test_recordings_are_searched_sorted_and_filtered(open_page: Opener, results: Path) -> None:
    page = open_page(results)
    page.get_by_role("searchbox").fill("TAPE")
    expect(page.locator(".count:visible")).to_have_text("5 recordings (of 7)")
    page.get_by_role("button", name="Length").click()
    expect(page.get_by_role("columnheader", name="Length")).to_have_attribute(
        "aria-sort", "descending"
    )
    assert names(page) == [f"tape {number}.mp3" for number in (5, 4, 3, 2, 1)]
    page.get_by_role("button", name="Length").click()
    assert names(page) == [f"tape {number}.mp3" for number in (1, 2, 3, 4, 5)]
    page.go_back()
    page.go_back()
    assert names(page)[0] == "tape 1.mp3"
    page.get_by_role("searchbox").fill("no such")
    expect(page.locator(".count:visible")).to_contain_text("Nothing matches")
    page.get_by_role("searchbox").fill("")
    page.get_by_label("Label").fill("speech")
    expect(page.locator(".count:visible")).to_have_text("1 recording (of 7)")
    # Missing scores come last, in either order.
    page.get_by_label("Label").fill("")
    for _ in range(2):
        page.get_by_role("button", name="background SI-SDR").click()
        assert names(page)[0] == "albums/Long Way.flac"
    page.get_by_label("Score").select_option("sdr")
    expect(page.get_by_role("row", name=re.compile("Long Way"))).to_contain_text("8.00")


def test_failures_are_told_in_words(open_page: Opener, results: Path) -> None:
    page = open_page(results)
    page.get_by_text("Failed (2)").click()
    row = page.get_by_role("row", name=re.compile("broken.mp3"))
    expect(row).to_contain_text("decoding the audio")
    expect(row).to_contain_text("broken.mp3 holds no audio: is it whole?")
    page.get_by_role("searchbox").fill("channels")
    expect(page.locator(".count:visible")).to_have_text("1 failure (of 2)")
    assert names(page) == ["net.wav"]


@pytest.mark.parametrize("served", [False, True], ids=["file", "server"])
def test_a_recording_plays_and_seeks(
    open_page: Opener, results: Path, address: str, served: bool
) -> None:
    page = open_long(open_page, address if served else results)
    page.wait_for_timeout(300)
    assert open_page.loaded("report") == ["report.js", "report-00000.js"]
    page.get_by_role("button", name="Play", exact=True).click()
    wait_for_position(page, after_s=0.4)
    assert "report-00002.js" not in open_page.loaded("report")
    wait_for_level(page, "Level", sounds=True)
    wait_for_level(page, "Level of mixture", sounds=True)
    assert level_db(page, "Level of background") == -60
    # Past where chunks meet.
    page.get_by_role("slider", name="Position").focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    drifts = page.evaluate(
        """async () => {
            const { player } = beamsplitter.shown;
            const drifts = [];
            while (player.position_s < 5.6) {
                await new Promise((go) => setTimeout(go, 20));
                const { position_s } = player;
                if (position_s > 4.4) drifts.push(position_s - performance.now() / 1000);
            }
            return drifts;
        }"""
    )
    assert len(drifts) > 5
    assert max(drifts) - min(drifts) < 0.15
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    stopped_s = position_s(page)
    expect(page.locator(".clock")).to_contain_text(f"0:0{stopped_s:.2f}"[:6])
    page.wait_for_timeout(200)
    assert position_s(page) == stopped_s
    assert level_db(page) == -60
    expect(page).to_have_url(re.compile(rf"t={stopped_s:.2f}"))


def test_it_stops_at_the_end_and_begins_again(open_page: Opener, results: Path) -> None:
    page = open_page(results, "#recording=Short&row=1&t=3.7")
    play = page.get_by_role("button", name="Play", exact=True)
    expect(play).to_be_visible()
    assert position_s(page) == pytest.approx(3.7)
    play.click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(play).to_be_visible()
    assert position_s(page) == pytest.approx(4.0)
    play.click()
    wait_for_position(page, after_s=0.05, before_s=2.0)


def test_clicks_seek_and_drags_loop(open_page: Opener, results: Path) -> None:
    page = open_long(open_page, results)
    box = page.locator("canvas.lane").first.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.click(box["x"] + box["width"] / 2, middle)
    assert position_s(page) == pytest.approx(DURATION_S / 2, abs=0.05)
    page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.52, middle, steps=4)
    page.mouse.up()
    expect(page.get_by_role("button", name="Loop", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    start_s, stop_s = DURATION_S * 0.5, DURATION_S * 0.52
    page.get_by_role("button", name="Play", exact=True).click()
    seen = page.evaluate(
        """async () => {
            const seen = [];
            for (let k = 0; k < 40; k++) {
                await new Promise((go) => setTimeout(go, 50));
                seen.push(beamsplitter.shown.player.position_s);
            }
            return seen;
        }"""
    )
    assert min(seen) >= start_s - 0.05
    assert max(seen) <= stop_s + 0.05
    assert sum(second < first for first, second in itertools.pairwise(seen)) >= 2
    page.get_by_label("Loop from").fill("0:01.5")
    page.get_by_label("Loop to").fill("2.25")
    page.get_by_label("Loop to").press("Enter")
    wait_for_position(page, after_s=1.5, before_s=2.25)
    page.get_by_label("Loop to").fill("soon")
    page.get_by_label("Loop to").press("Enter")
    assert page.get_by_label("Loop to").evaluate("(input) => input.validationMessage") == (
        "Times are as 1:23.5, up to 0:21.30."
    )
    page.get_by_role("button", name="Loop chorus, 0:06.0 to 0:10.0").click()
    wait_for_position(page, after_s=6.0, before_s=10.0)


def test_signals_are_soloed_muted_and_held_against_the_mixture(
    open_page: Opener, results: Path
) -> None:
    page = open_long(open_page, results)
    page.get_by_role("button", name="Play", exact=True).click()
    wait_for_level(page, "Level of mixture", sounds=True)
    page.keyboard.press("b")
    wait_for_level(page, "Level of mixture", sounds=False)
    wait_for_level(page, "Level of background", sounds=True)
    expect(page.get_by_role("radio", name="Sum of stems")).to_be_checked()
    page.get_by_role("button", name="Mute background").click()
    wait_for_level(page, "Level of background", sounds=False)
    page.get_by_role("button", name="Solo foreground").click()
    expect(page.get_by_role("button", name="Solo foreground")).to_have_attribute(
        "aria-pressed", "true"
    )
    page.keyboard.press("1")
    wait_for_level(page, "Level of mixture", sounds=True)
    page.get_by_role("slider", name="Volume of mixture").fill("-40")
    wait_for_level(page, "Level of mixture", sounds=False)
    page.keyboard.press("0")
    expect(page.get_by_role("radio", name="Sum of stems")).to_be_checked()


def test_the_view_zooms_and_follows(open_page: Opener, results: Path) -> None:
    page = open_long(open_page, results)
    for _ in range(3):
        page.get_by_role("button", name="Zoom in").click()
    view = page.evaluate("beamsplitter.shown.room.timeline.view")
    assert view["end_s"] - view["start_s"] == pytest.approx(DURATION_S / 8)
    page.get_by_role("slider", name="Position").focus()
    page.keyboard.press("Shift+ArrowRight")
    view = page.evaluate("beamsplitter.shown.room.timeline.view")
    assert view["start_s"] < 10 < view["end_s"]
    # Near enough for the chunks' own pictures, which are finer.
    page.wait_for_timeout(400)
    assert "report-00002.js" in open_page.loaded("report-")
    page.get_by_role("slider", name="Scroll along the recording").fill("0")
    assert page.evaluate("beamsplitter.shown.room.timeline.view.start_s") == 0
    page.keyboard.press("f")
    page.get_by_role("button", name="Show the whole recording").click()
    expect(page.get_by_role("slider", name="Scroll along the recording")).to_be_hidden()
    box = page.locator("canvas.lane").first.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    view = page.evaluate("beamsplitter.shown.room.timeline.view")
    assert view["end_s"] - view["start_s"] == pytest.approx(DURATION_S / 2)


def test_fingers_seek_pan_and_zoom(open_page: Opener, results: Path) -> None:
    page = open_long(open_page, results, width=360, has_touch=True)
    fingers = page.context.new_cdp_session(page)
    box = page.locator("canvas.lane").first.bounding_box()
    assert box
    y = box["y"] + box["height"] / 2

    def touch(kind: str, *shares: float) -> None:
        points = [
            {"x": box["x"] + share * box["width"], "y": y, "id": number}
            for number, share in enumerate(shares)
        ]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def view() -> tuple[float, float]:
        seen = page.evaluate("beamsplitter.shown.room.timeline.view")
        return seen["start_s"], seen["end_s"]

    touch("touchStart", 0.25)
    touch("touchEnd")
    assert position_s(page) == pytest.approx(DURATION_S / 4, abs=0.1)
    # Apart from a quarter to half of the width: what was in the middle stays there.
    touch("touchStart", 0.375, 0.625)
    for share in (0.35, 0.3, 0.25):
        touch("touchMove", share, 1 - share)
    touch("touchEnd")
    assert view() == pytest.approx((DURATION_S / 4, DURATION_S * 3 / 4), abs=0.3)
    start_s, end_s = view()
    touch("touchStart", 0.6)
    for share in (0.7, 0.8):
        touch("touchMove", share)
    touch("touchEnd")
    moved_s = 0.2 * (end_s - start_s)
    assert view() == pytest.approx((start_s - moved_s, end_s - moved_s), abs=0.3)
    expect(page.get_by_role("button", name="Loop", exact=True)).to_have_attribute(
        "aria-pressed", "false"
    )


def rendered(page: Page, start_s: float, stop_s: float, signal: str) -> np.ndarray:
    """What would be heard of one signal, float32 `(channels, samples)`."""
    text = page.evaluate(
        """async ([start, stop, signal]) => {
            const { player } = beamsplitter.shown;
            player.setSolos([signal]);
            const heard = await player.render(start, stop);
            return [0, 1].map((channel) => {
                const bytes = new Uint8Array(heard.getChannelData(channel).buffer);
                let text = "";
                for (let k = 0; k < bytes.length; k += 8192) {
                    text += String.fromCharCode(...bytes.subarray(k, k + 8192));
                }
                return btoa(text);
            });
        }""",
        [start_s, stop_s, signal],
    )
    return np.stack([np.frombuffer(base64.b64decode(each), np.float32) for each in text])


def chunks_joined(folder: Path, signal: str, count: int) -> np.ndarray:
    """A signal put together of its chunks' sound with faded joints, by no code of the page."""
    fade = round(0.01 * SAMPLE_RATE)
    joined = np.zeros((2, 0), np.float32)
    for number in range(count):
        text = (folder / f"report-{number:05d}.js").read_text()
        chunk = json.loads(text.removeprefix("beamsplitter.receive(").removesuffix(");\n"))
        heard = result_pages.decoded_opus(base64.b64decode(chunk["signals"][signal]["audio"]))
        start = round((number * CHUNK_S - chunk["lead_s"]) * SAMPLE_RATE)
        if number == 0:
            joined = heard
            continue
        edge = round(number * CHUNK_S * SAMPLE_RATE) - fade // 2
        up = (np.arange(fade) / fade).astype(np.float32)
        old, new = joined[:, edge : edge + fade], heard[:, edge - start :]
        crossed = old * (1 - up) + new[:, :fade] * up
        joined = np.concatenate([joined[:, :edge], crossed, new[:, fade:]], axis=1)
    return joined


def test_all_signals_are_played_to_the_sample(open_page: Opener, results: Path) -> None:
    page = open_long(open_page, results)
    stems = made_stems(DURATION_S)
    signals = {"mixture": sum(stems.values()), **stems}
    heard = {}
    for name, signal in signals.items():
        heard[name] = rendered(page, 0, DURATION_S, name)
        assert heard[name].shape == signal.shape
        expected = chunks_joined(results.parent / "albums/Long Way", name, count=5)
        np.testing.assert_allclose(heard[name], expected[:, : signal.shape[1]], atol=2e-4)
        # Where one sample off, the strokes would not meet.
        error = rms(heard[name] - signal)
        assert error < rms(signal) / 4
        assert error < rms(np.roll(heard[name], 1, axis=1) - signal) / 1.5
    stems_heard = heard["background"] + heard["foreground"]
    assert rms(stems_heard - heard["mixture"]) < rms(heard["mixture"]) / 4
    # From the middle of a chunk, over two joints, it is the same stretch.
    start, stop = round(3.21 * SAMPLE_RATE), round(12.5 * SAMPLE_RATE)
    stretch = rendered(page, 3.21, 12.5, "mixture")
    np.testing.assert_allclose(stretch, heard["mixture"][:, start:stop], atol=1e-6)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def test_a_real_run_is_seen_and_heard(open_page: Opener, real_runs: Path) -> None:
    out = real_runs / "repeating"
    page = open_page(out / "index.html")
    row = page.get_by_role("row", name=re.compile("song.wav"))
    expect(row).to_contain_text("0:21")
    told = json.loads((out / "song/manifest.json").read_text())
    scored = next(file["scores"] for file in told["files"] if file["name"] == "scores.json")
    for score in scored:
        expect(row).to_contain_text(f"{score['track']:.2f}".replace("-", "−"))
    page.get_by_text("Failed (1)").click()
    expect(page.get_by_role("row", name=re.compile("broken.mp3"))).to_contain_text("not audio")
    page.get_by_text("Finished (1)").click()
    page.get_by_role("link", name="song.wav").click()
    page.get_by_role("button", name="Play", exact=True).click()
    wait_for_level(page, "Level of mixture", sounds=True)
    page.keyboard.press("Space")
    signals = ("mixture", "background", "foreground")
    heard = {name: rendered(page, 0, REAL_S, name) for name in signals}
    for name in ("background", "foreground"):
        stem, rate = soundfile.read(out / "song" / f"{name}.flac", dtype="float32")
        assert rate == SAMPLE_RATE and heard[name].shape == stem.T.shape
        error = rms(heard[name] - stem.T)
        assert error < rms(stem) / 4
        assert error < rms(np.roll(heard[name], 1, axis=1) - stem.T)
    both = heard["background"] + heard["foreground"]
    assert rms(both - heard["mixture"]) < rms(heard["mixture"]) / 8
    link = page.get_by_role("link", name="background.flac").evaluate("(link) => link.href")
    assert link == (out / "song" / "background.flac").as_uri()


def test_real_runs_are_compared(open_page: Opener, real_runs: Path) -> None:
    page = open_page(real_runs / "both" / "index.html")
    expect(page.get_by_role("table", name="The runs")).to_contain_text("hpss")
    page.get_by_role("link", name="song.wav").click()
    page.get_by_role("button", name="Play", exact=True).click()
    page.get_by_role("button", name="Solo hpss: percussive").click()
    wait_for_level(page, "Level of hpss: percussive", sounds=True)
    wait_for_level(page, "Level of repeating: background", sounds=False)
    page.get_by_role("link", name="In hpss").click()
    expect(page.get_by_role("button", name="Solo percussive")).to_be_visible()
    # A copy that is sent has no stems.
    expect(page.get_by_role("link", name="percussive.flac")).to_have_count(0)


def test_names_are_text(open_page: Opener, tmp_path: Path) -> None:
    out = tmp_path
    rows, facts = [], []
    for number, name in enumerate(HOSTILE):
        folder = f"{number} {name.replace('/', '∕')[:60]}"
        row, fact = write_recording(out, folder, made_stems(1.0), name=name)
        row["labels"] = [{"label": name, "share": 1.0}]
        fact["labels"] = [{"start_s": 0, "end_s": 1, "label": name}]
        fact["manifest"]["input"]["element"] = name
        fact["manifest"]["branches"][name] = {"settings": {name: name}}
        rows.append(row)
        facts.append(fact)
    failures = [
        {"element": name, "step": name, "exception": name, "message": name} for name in HOSTILE
    ]
    stems = ["background", HOSTILE[0]]
    index = write_run(out, rows, facts, failures, job_name=HOSTILE[0], has_labels=True, stems=stems)
    page = open_page(index)
    assert names(page) == list(HOSTILE)
    assert page.title() == f"{HOSTILE[0]} – Beamsplitter"
    page.get_by_text("Failed (5)").click()
    assert names(page) == list(HOSTILE)
    for number, name in enumerate(HOSTILE):
        page.goto(index.as_uri())
        page.locator(".list tbody a").nth(number).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
        page.get_by_text("What made it").click()
        assert page.title() == f"{name} – Beamsplitter"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name="Play", exact=True).click()
        wait_for_position(page, after_s=0.1)
    assert page.locator("img").count() == 0


def test_what_signs_its_address_signs_those_of_its_files(open_page: Opener, results: Path) -> None:
    signature = "Expires=1&Signature=ab%2Bc~d=="
    with served(results.parent, signature=signature) as address:
        page = open_page(f"{address}?{signature}")
        page.get_by_role("link", name="Long Way").click()
        page.get_by_role("button", name="Play", exact=True).click()
        wait_for_level(page, "Level of mixture", sounds=True)


def test_names_that_are_no_text_have_addresses(open_page: Opener, tmp_path: Path) -> None:
    """Disks of the wild have names in other encodings than UTF-8."""
    folder = "caf\udce9 \U0001f3b5/100%"
    row, facts = write_recording(tmp_path, folder, made_stems(1.0))
    page = open_page(write_run(tmp_path, [row], [facts]))
    page.get_by_role("link", name="100%").click()
    page.get_by_role("button", name="Play", exact=True).click()
    wait_for_position(page, after_s=0.1)
    page.reload()
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()


@pytest.mark.parametrize("folder", ["../elsewhere", "albums/../../elsewhere", "/etc", "none"])
def test_addresses_lead_nowhere_else(open_page: Opener, results: Path, folder: str) -> None:
    """A link to a recording that the run does not have loads nothing by its name."""
    page = open_page(results, f"#recording={folder}&row=0")
    expect(page.get_by_text("This run has no such recording.")).to_be_visible()
    assert open_page.loaded("run.js") == ["run.js"]
    assert not [each for each in open_page.requests if "report.js" in each]


def test_ten_thousand_recordings_are_loaded_by_need(open_page: Opener, tmp_path: Path) -> None:
    rows = [plain_row(f"tape {number:05d}", duration_s=number % 977) for number in range(10_000)]
    facts = [{"manifest": {"files": []}, "labels": [], "choruses": []}] * len(rows)
    page = open_page(write_run(tmp_path, rows, facts))

    def loaded() -> list[str]:
        return open_page.loaded(r"(run|rows|facts|failures)\b.*js")

    assert names(page) == [f"tape {number:05d}.mp3" for number in range(50)]
    assert loaded() == ["run.js", "rows-00000.js"]
    page.get_by_role("button", name="Last").click()
    expect(page.get_by_text("tape 09999.mp3")).to_be_visible()
    assert loaded() == ["run.js", "rows-00000.js", "rows-00049.js"]
    page.get_by_role("searchbox").fill("07123")
    expect(page.locator(".count:visible")).to_have_text("1 recording (of 10,000)")
    page.get_by_text("tape 07123.mp3").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("tape 07123.mp3")
    assert [name for name in loaded() if name.startswith("facts")] == ["facts-00035.js"]
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("tape 07124.mp3")
    page.go_back()
    page.go_back()
    assert names(page) == ["tape 07123.mp3"]


def test_a_run_is_watched_while_it_goes_on(open_page: Opener, tmp_path: Path) -> None:
    running = {"state": "running", "ended": None}
    index = write_run(tmp_path, [plain_row("first")], updated="2026-01-01T00:00:01Z", **running)
    page = open_page(index)
    expect(page.get_by_text("running")).to_be_visible()
    assert names(page) == ["first.mp3"]
    rows = [plain_row("first"), plain_row("second")]
    write_run(tmp_path, rows, updated="2026-01-01T00:00:09Z", **running)
    expect(page.get_by_text("second.mp3")).to_be_visible()
    write_run(tmp_path, rows, updated="2026-01-01T00:00:19Z")
    expect(page.get_by_text("running")).to_be_hidden()


def test_without_sound_of_its_own_stems_and_plots_are_shown(
    open_page: Opener, tmp_path: Path
) -> None:
    row, facts = write_recording(tmp_path, "song", made_stems(2.0), audio=False)
    facts["manifest"]["files"].append({"name": "spectrogram.png", "branch": "plots"})
    # The smallest picture.
    (tmp_path / "song" / "spectrogram.png").write_bytes(
        base64.b64decode(
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
        )
    )
    page = open_page(write_run(tmp_path, [row], [facts]), "#recording=song")
    expect(page.locator("audio")).to_have_count(2)
    assert page.evaluate(
        """async () => {
            const audio = document.querySelector("audio");
            audio.muted = true;
            await audio.play();
            return audio.duration;
        }"""
    ) == pytest.approx(2.0, abs=0.02)
    picture = page.get_by_role("img", name="Spectrogram: spectrogram.png")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('figure img').naturalWidth === 1")


def test_a_browser_that_cannot_decode_says_so(open_page: Opener, tmp_path: Path) -> None:
    row, facts = write_recording(tmp_path, "song", made_stems(2.0))
    chunk = tmp_path / "song" / "report-00000.js"
    chunk.write_text(re.sub(r'"audio": "[^"]{40}', '"audio": "' + "A" * 40, chunk.read_text()))
    page = open_page(write_run(tmp_path, [row], [facts]), "#recording=song")
    expect(page.get_by_text("can’t decode")).to_be_visible()
    expect(page.locator("audio")).to_have_count(2)


def test_two_runs_side_by_side(open_page: Opener, compared: Path) -> None:
    page = open_page(compared)
    row = page.get_by_role("row", name=re.compile("song"))
    expect(row).to_contain_text("7.50")
    expect(row).to_contain_text("+2.50")
    expect(page.get_by_role("row", name=re.compile("^alone"))).to_be_visible()
    page.get_by_text("song.flac").click()
    page.get_by_role("button", name="Play", exact=True).click()
    wait_for_level(page, "Level of mixture", sounds=True)
    page.get_by_role("radio", name="hpss: sum of stems").check(force=True)
    wait_for_level(page, "Level of hpss: voice", sounds=True)
    wait_for_level(page, "Level of nn-filter: voice", sounds=False)
    page.go_back()
    page.get_by_text("alone.mp3").click()
    expect(page.get_by_text("hpss has no such recording.")).to_be_visible()


def test_blind_listening_hides_names_until_the_end(open_page: Opener, compared: Path) -> None:
    page = open_page(compared, "#recording=song")
    page.get_by_role("combobox").select_option(label="voice")
    page.get_by_role("button", name="Begin", exact=True).click()
    player = page.get_by_role("region", name="Player")
    expect(page.get_by_role("button", name="Hear 1")).to_be_visible()
    assert "hpss" not in player.inner_text()
    assert "nn-filter" not in player.inner_text()
    page.get_by_role("button", name="Play", exact=True).click()
    sides = []
    for _ in range(12):
        page.keyboard.press("1")
        gains = page.evaluate(
            "['0:voice', '1:voice'].map((id) => beamsplitter.shown.player.gain(id))"
        )
        sides.append(gains.index(max(gains)))
        page.keyboard.press("2")
        other = page.evaluate(
            "['0:voice', '1:voice'].map((id) => beamsplitter.shown.player.gain(id))"
        )
        assert other[sides[-1]] == 0 and max(other) > 0
        # Always for the second run, wherever it is.
        page.get_by_role("button", name=f"{2 if sides[-1] == 0 else 1} is better").click()
    # By chance one order in 2048 tries.
    assert set(sides) == {0, 1}
    page.get_by_role("button", name="No difference").click()
    expect(page.get_by_text("13 rounds so far")).to_be_visible()
    page.get_by_role("button", name="End, and tell").click()
    tally = page.get_by_role("region", name="What was chosen")
    expect(tally.get_by_role("row", name="nn-filter 0")).to_be_visible()
    expect(tally.get_by_role("row", name="hpss 12")).to_be_visible()
    expect(tally.get_by_role("row", name="No difference 1")).to_be_visible()
    expect(player).to_contain_text("hpss: voice")


# Schemes are of other colours only; axe, which sees their contrast, takes seconds a page.
@pytest.mark.parametrize(
    ("width", "scheme", "with_axe"),
    [(360, "dark", True), (800, "dark", False), (1600, "light", True)],
)
def test_pages_fit_and_have_no_serious_fault(
    open_page: Opener, results: Path, compared: Path, width: int, scheme: str, with_axe: bool
) -> None:
    shown = [
        (results, ""),
        (results, "#show=failed"),
        (results, "#recording=albums%2FLong+Way&row=0&t=6"),
        (compared, ""),
        (compared, "#recording=song"),
    ]
    for number, (index, address) in enumerate(shown):
        page = open_page(index, address, width=width, scheme=scheme)
        expect(page.locator(".list tbody tr, .room canvas").first).to_be_visible()
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if not with_axe:
            page.close()
            continue
        # It would fetch the style sheets, which a page's policy refuses.
        found = Axe().run(page, options={"preload": False}).response["violations"]
        faults = [
            (fault["id"], fault["nodes"][0]["html"][:200], fault["nodes"][0]["failureSummary"])
            for fault in found
            if fault["impact"] in ("serious", "critical", "moderate")
        ]
        assert faults == [], number
        page.close()


def test_the_keyboard_reaches_everything(open_page: Opener, results: Path) -> None:
    page = open_long(open_page, results)
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(document.activeElement.getAttribute('aria-label')"
                " ?? document.activeElement.innerText)"
            )
        )
        outline = page.evaluate(
            "getComputedStyle(document.activeElement.closest('label') ?? document.activeElement)"
            ".outlineStyle"
        )
        assert outline != "none" or page.evaluate("document.activeElement === document.body")
    for name in (
        "Play",
        "Loop from",
        "Zoom in",
        "Volume",
        "Position in the recording",
        "Solo mixture",
        "Mute foreground",
        "Volume of background",
        "background.opus",
        "What made it",
    ):
        assert name in reached
