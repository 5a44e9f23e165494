"""The report as a reader meets it, in a real headless Chromium: nothing asked for, nothing complained of, nothing cut
off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import optional
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "unit")]

import browser  # noqa: E402
import made  # noqa: E402

from llmpar import records  # noqa: E402

pytestmark = optional.needs("aiohttp", "chromium")

LOOKS = (
    (1280, False, "screen"),
    (1280, True, "screen"),
    (390, False, "screen"),
    (390, True, "screen"),
    (794, False, "print"),
)
# Contrast of text that WCAG 2.2 asks for (level AA).
LEAST_CONTRAST = 4.5
OVERFLOWING = """[...document.querySelectorAll('main *')].filter(e => e.checkVisibility() && !e.closest('.scroll')
  && !e.closest('svg')
  && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className)"""
CONTRASTS = """(() => {
  const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const light = colour => { probe.fillStyle = colour; probe.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...probe.getImageData(0, 0, 1, 1).data].map(v =>
    (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  // What is behind a text: the nearest of its ancestors that has a background, a card or a stripe of a table.
  const behind = e => { for (; e; e = e.parentElement) { const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$|^transparent$/.test(colour)) return light(colour); } return light('white'); };
  const texts = 'h1,p,li,td,th,td small,.badge,summary,label,output,.verdict,figcaption,figure svg text';
  return [...document.querySelectorAll(texts)]
    .filter(e => e.checkVisibility()).map(e => {
    const s = getComputedStyle(e), paper = behind(e), ink = light(e.tagName == 'text' ? s.fill : s.color);
    return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05); }).reduce((a, b) => Math.min(a, b), 99);
})()"""
TEXT_SIZE = """Math.min(...[...document.querySelectorAll('svg text')].filter(e => e.checkVisibility())
  .map(e => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a))"""
CUT = """[...document.querySelectorAll('svg')].filter(s => s.checkVisibility()).flatMap(s => {
  const box = s.getBoundingClientRect();
  return [...s.querySelectorAll('text')].filter(t => { const r = t.getBoundingClientRect();
    return r.width && (r.left < box.left - 2 || r.right > box.right + 2); }).map(t => t.textContent); })"""
STATES = "[...document.querySelectorAll('#cells tbody tr')].map(r => r.querySelector('.state').textContent)"
COLUMN = "[...document.querySelectorAll('#cells tbody tr')].filter(r => !r.hidden).map(r => r.cells[3].dataset.sort)"
TYPE = """(() => {{ const field = document.getElementById('{}'); field.value = {!r};
  field.dispatchEvent(new Event('input')); }})()"""
TRADED = "[...document.querySelectorAll('svg[data-metric] .p')]"


@pytest.fixture(scope="module")
def seen(tmp_path_factory, request) -> dict[tuple[int, bool, str], dict]:
    """What each look of the page measured, from one browser."""
    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    given = b"".join(records.encode(summary) for summary in made.study(2))
    root = request.config.rootpath
    done = subprocess.run(
        [str(root / "bin" / "llmpar-report"), "--slo", "ttft-p95<700ms", "-o", str(path)],
        input=given,
        capture_output=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr

    async def look() -> dict[tuple[int, bool, str], dict]:
        found = {}
        async with browser.page(folder / "profile") as page:
            for width, dark, media in LOOKS:
                await page.open(path.as_uri(), width, dark=dark, media=media)
                picture = folder / f"{media}-{width}-{'dark' if dark else 'light'}.png"
                await page.screenshot(picture)
                found[width, dark, media] = {
                    "requests": page.requests(),
                    "complaints": page.complaints(),
                    "picture": picture,
                    "width": await page.value("document.documentElement.scrollWidth"),
                    "over": await page.value(OVERFLOWING),
                    "contrast": await page.value(CONTRASTS),
                    "text": await page.value(TEXT_SIZE),
                    "cut": await page.value(CUT),
                    "figures": await page.value("document.querySelectorAll('figure svg').length"),
                    "paper": await page.value("getComputedStyle(document.body).backgroundColor"),
                }
            await page.open(path.as_uri(), *LOOKS[0][:1])
            found["used"] = await use(page)
        return found

    async def use(page: browser.Page) -> dict:
        """What a reader does: types objectives, filters, sorts, walks through points by keys."""
        used = {"first": await page.value(STATES), "line": await page.value(
            "document.querySelectorAll('.slo:not([hidden])').length")}  # fmt: skip
        await page.value(TYPE.format("slo", "ttft-p95<1.2s, tpot-p95<25ms"))
        used["typed"] = await page.value(STATES)
        used["said"] = await page.value("document.getElementById('slo-said').textContent")
        used["colours"] = await page.value(
            TRADED + ".map(p => [p.classList.contains('meets'), getComputedStyle(p).fill])"
        )
        await page.value(TYPE.format("slo", "fast"))
        used["refused"] = await page.value("document.getElementById('slo-said').textContent")
        await page.value(TYPE.format("filter", "clients vllm"))
        used["left"] = await page.value("document.getElementById('filter-said').textContent")
        used["dimmed"] = await page.value(TRADED + ".filter(p => p.classList.contains('off')).length")
        await page.value("document.querySelectorAll('#cells th')[3].focus()")
        for _ in range(2):
            await page.press("Enter")
            await page.value("new Promise(done => setTimeout(done, 50))")
            used.setdefault("sorted", []).append(await page.value(COLUMN))
        await page.value("document.querySelector('svg[data-metric]').focus()")
        await page.press("ArrowRight")
        used["tip"] = await page.value("document.getElementById('tip').textContent")
        used["complaints"] = page.complaints()
        return used

    return asyncio.run(look())


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_asks_for_nothing_and_complains_of_nothing(seen, look):
    assert seen[look]["requests"] == []
    assert seen[look]["complaints"] == []


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_sticks_out_of_the_page(seen, look):
    assert seen[look]["width"] <= look[0]
    assert seen[look]["over"] == []
    assert seen[look]["cut"] == []


@pytest.mark.parametrize("look", LOOKS)
def test_text_can_be_read(seen, look):
    assert seen[look]["contrast"] >= LEAST_CONTRAST
    assert seen[look]["text"] >= 9.5  # pixels, in the drawings


def test_dark_is_dark_and_print_is_white(seen):
    assert seen[1280, True, "screen"]["paper"] == "rgb(21, 21, 24)"
    assert seen[794, False, "print"]["paper"] == "rgb(255, 255, 255)"
    assert all(seen[look]["picture"].read_bytes().startswith(b"\x89PNG") for look in LOOKS)
    assert all(seen[look]["figures"] >= 8 for look in LOOKS)


def test_objectives_typed_in_judge_the_table_and_the_chart(seen):
    used = seen["used"]
    assert used["first"].count("✓ meets") == 8 and used["first"].count("✗ misses") == 6
    assert used["line"] == 1
    assert used["typed"].count("✓ meets") == 4 and used["said"] == "meet 4 · miss 10 · cannot tell 0"
    meets = {fill for state, fill in used["colours"] if state}
    assert len(meets) == 1 and meets.isdisjoint(fill for state, fill in used["colours"] if not state)
    assert "is not an objective such as ttft-p95<500ms" in used["refused"]


def test_the_table_is_filtered_and_sorted_by_keys(seen):
    used = seen["used"]
    assert used["left"] == "5 of 14 cells" and used["dimmed"] == 2 * 9
    ways = [[float(value) for value in values] for values in used["sorted"]]
    assert len(ways[0]) == 5 and ways == [sorted(ways[0]), sorted(ways[0], reverse=True)]
    assert used["tip"].startswith("clients: ") and "TTFT p95" in used["tip"]
    assert used["complaints"] == []
