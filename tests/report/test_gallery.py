"""The test images on the page: order, threshold line, mistakes, and the filter in a browser."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from test_run import FOUND, scored_set, write

from report import gallery, page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--virtual-time-budget=2000",
)


def example(scores, labels, defects=None):
    labels = np.array(labels)
    defects = defects or ["hole" if label else "good" for label in labels]
    scored = scored_set(good=0, defects=defects)
    return scored._replace(labels=labels, scores=np.array(scores), masks=[None] * len(labels))


def threshold_of(value):
    return FOUND._replace(threshold=value)


def template():
    return page.environment().get_template("gallery.html").module


def mistakes_html(scored, threshold):
    scale = gallery.colour_scale(threshold.map_max)
    return str(template().mistakes(gallery.mistakes(scored, threshold), scale))


def thumbnails_html(*arguments):
    return str(template().thumbnails(gallery.thumbnails(*arguments)))


def shown(scored, value):
    """Scores of the thumbnails in the order of the page, with the line among them."""
    text = thumbnails_html(scored, threshold_of(value), "title", "about")
    found = re.findall(r'<b>([0-9.]+)</b>|(id="limit")', text)
    return ["line" if line else float(score) for score, line in found]


def test_highest_first_with_the_line_at_the_threshold():
    scored = example([0.1, 0.9, 0.5, 0.3], [0, 1, 1, 0])
    assert shown(scored, 0.4) == [0.9, 0.5, "line", 0.3, 0.1]
    assert shown(scored, 0.5) == [0.9, "line", 0.5, 0.3, 0.1]  # a score at it is not above it
    assert shown(scored, 1.0) == ["line", 0.9, 0.5, 0.3, 0.1]
    assert shown(scored, 0.0) == [0.9, 0.5, 0.3, 0.1, "line"]


def test_mistakes_by_hand():
    scored = example([0.1, 0.9, 0.5, 0.3, 0.7, 0.4], [1, 0, 0, 1, 1, 0])
    found = gallery.order(scored, 0.4)
    assert found.alarms.tolist() == [1, 2] and found.misses.tolist() == [0, 3]
    assert found.ranked.tolist() == [1, 4, 2, 5, 3, 0] and found.above == 3
    text = mistakes_html(scored, threshold_of(0.4))
    order = [float(score) for score in re.findall(r"<b>score ([0-9.]+)</b>", text)]
    assert order == [0.9, 0.5, 0.1, 0.3]


def test_equal_scores_keep_the_order_of_the_test_set():
    found = gallery.order(example([0.5] * 5, [0, 1, 0, 1, 1]), 0.5)
    assert found.ranked.tolist() == [0, 1, 2, 3, 4] and found.above == 0
    assert found.misses.tolist() == [1, 3, 4]


def test_only_the_worst_are_shown_large():
    scored = example(np.arange(20) / 10, [0] * 10 + [1] * 10)
    text = mistakes_html(scored, threshold_of(-1.0))
    assert "the 6 highest of 10" in text and text.count('class="worst"') == 6
    assert "None: no defective test image has a score at or below the threshold." in text


def test_no_mistakes_and_one_class_are_said():
    text = mistakes_html(example([0.1, 0.2], [0, 0]), threshold_of(0.5))
    assert "None: no good test image has a score above the threshold." in text
    assert "There are no defective test images." in text


def test_the_filter_counts_and_never_holds_a_name_in_code():
    names = ["good", '"><script>x', "cut", "cut"]
    scored = example([0.1, 0.2, 0.3, 0.9], [0, 1, 1, 1], names)
    text = thumbnails_html(scored, threshold_of(0.5), "t", "a")
    labels = re.findall(r"> ([^<]+) \(([0-9]+)\)</label>", text)
    assert labels == [
        ("all", "4"),
        ("wrong decisions", "2"),
        ("good", "1"),
        ("&#34;&gt;&lt;script&gt;x", "1"),
        ("cut", "2"),
    ]
    assert "<script>" not in text
    assert text.count("<strong>missed</strong>") == 2 == text.count("data-wrong=")


def test_two_thousand_images_stay_a_few_megabytes():
    count = 2000
    scored = example(np.linspace(0, 1, count), [0, 1] * (count // 2))
    assert len(thumbnails_html(scored, threshold_of(0.5), "t", "a")) < 8e6


def browse(address, fragment, folder):
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder}", "--dump-dom"]
    done = subprocess.run(
        [*command, f"file://{address}{fragment}"], capture_output=True, text=True, timeout=120
    )
    return re.findall(r'<figure data-type="([0-9])"([^>]*)>', done.stdout), done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_filter_works_in_a_browser(tmp_path):
    """From a file; the address chooses a filter as a click would."""
    script = "<script>document.body.remove()</script>"
    scored = scored_set(defects=["cut", "cut", script])
    scored.scores[:] = [0.01] * 6 + [0.9]  # both cuts are missed
    write(tmp_path / "report", scored)
    address = tmp_path / "report" / "index.html"
    for fragment, types in (
        ("", "012"),
        ("#type=all", "012"),
        ("#type=nonsense", "012"),
        ("#type=wrong", "2"),
        ("#type=0", "0"),
        ("#type=2", "2"),
    ):
        figures, dom = browse(address, fragment, tmp_path / "profile")
        assert len(figures) == 7
        visible = {kind for kind, attributes in figures if "hidden" not in attributes}
        hidden = {kind for kind, attributes in figures if "hidden" in attributes}
        assert visible == set(types) and not visible & hidden
        assert '<form id="filter" autocomplete="off">' in dom  # the script has shown it
