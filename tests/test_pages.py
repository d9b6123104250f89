"""What every page has in common, and the review of near-duplicates in a real browser."""

import re
import time
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cxr import pages
from cxr.dataset.duplicates import Duplicates
from cxr.dataset.review import decide, read_reviewed, write_review
from tests.test_page import CHROMIUM, DRIVER, browser  # noqa: F401  # the fixture

ROOT = Path(__file__).parent.parent
RECORDS = pd.DataFrame(
    {
        "image_id": ["a/1, left.png", "a/2.png", "a/3.png", 'a/"4".png'],
        "source": "a",
        "patient_id": ["a/1", "a/1", "a/2", "a/3"],
        "findings": "Normal",
        "label": "Normal",
        "reason": None,
        "split": "train",
        "width": 64,
        "height": 64,
        "sha256": ["1", "2", "3", "4"],
    }
)
PAIRS = Duplicates(
    np.array([[0, 1], [1, 2], [2, 3]]),
    np.array([0.93, 0.91, 0.9], np.float32),
    np.array(["unsure", "unsure", "unsure"], object),
)


def review(folder: Path, *lines: str) -> Path:
    earlier = folder / "reviewed_pairs.csv"
    earlier.write_text("\n".join(["image_a,image_b,verdict", *lines]) + "\n")
    thumbs = np.random.default_rng(0).integers(0, 255, (4, 64, 64), np.uint8)
    write_review(folder / "review", RECORDS, PAIRS, lambda rows: thumbs[rows.index], earlier)
    return folder / "review/index.html"


def test_a_name_that_a_template_does_not_know_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        pages.render("base.html", {"script": ""})


def test_no_value_becomes_a_part_of_a_page():
    said = '<script>alert("1")</script>'
    page = pages.render("base.html", {"title": said, "script": ""})
    assert said not in page
    assert page.count("&lt;script&gt;") == 2


def test_html_is_written_by_templates_alone():
    for path in (path for room in ("checks", "cxr", "flows", "stages", "study") for path in Path(room).rglob("*.py")):
        assert not re.search(r"<(table|h[1-6]|div|html|p class)\b", path.read_text()), path


def test_templates_load_nothing():
    for path in Path("cxr/pages").iterdir():
        if path.is_file():
            assert not re.search(r"https?://|@import|url\(", path.read_text()), path


@pytest.mark.skipif(not (CHROMIUM.exists() and DRIVER.exists()), reason="no Chromium on this machine")
def test_pairs_are_decided_by_buttons_and_keys_and_saved(browser, tmp_path):  # noqa: F811
    """What is saved is the file that assemble reads: earlier lines stay, those of other sources too."""
    page = review(tmp_path, "other/1,other/2,same", "a/3.png,a/2.png,different")
    saved = tmp_path / "saved"
    saved.mkdir()
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved)})
    browser.get(page.as_uri())

    def shown() -> str:
        return browser.find_element(By.CLASS_NAME, "bar").text

    def card(image_a: str):
        return next(c for c in browser.find_elements(By.CLASS_NAME, "pair") if c.get_attribute("data-a") == image_a)

    assert shown().startswith("1 of 3 decided")
    assert not browser.find_element(By.ID, "save").is_enabled()
    card("a/1, left.png").find_element(By.CSS_SELECTOR, "[data-verdict=same]").click()
    card("a/3.png").send_keys("p")
    assert shown().startswith("3 of 3 decided")
    browser.refresh()  # loses nothing
    assert shown().startswith("3 of 3 decided")
    card("a/2.png").send_keys("u")  # an earlier decision is taken back
    browser.switch_to.active_element.send_keys(Keys.ARROW_UP)
    assert "3 not in the file yet" in shown()
    browser.find_element(By.ID, "save").click()
    file = saved / "reviewed_pairs.csv"
    deadline = time.monotonic() + 10
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert file.read_text().splitlines() == [
        "image_a,image_b,verdict", "other/1,other/2,same", '"a/1, left.png",a/2.png,same',
        'a/3.png,"a/""4"".png",same-patient',
    ]  # fmt: skip
    decided = decide(PAIRS, read_reviewed(file, RECORDS), RECORDS)
    assert decided.verdict.tolist() == ["same", "unsure", "same-patient"]
    faults = [entry["message"] for entry in browser.get_log("browser")]
    assert faults == []
    for width in (390, 1280):
        browser.set_window_size(width, 900)
        assert not browser.execute_script("return document.documentElement.scrollWidth > innerWidth")
