"""The page in a real browser: Debian's Chromium, headless, with nothing but loopback to talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from cxr.release.model import Release
from tests.chest_films import chest_film, not_frontal
from tests.image_files import dicom, draw, jpeg, png
from tests.live_service import LiveService, serve
from tests.release_fixture import build_region_release, build_release

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not (CHROMIUM.exists() and DRIVER.exists()), reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser(heavy: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


class Page:
    """What a person sees and does."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        self.browser.get(url)
        self.wait(lambda: self.text("version") != "–")

    def wait(self, condition) -> None:
        WebDriverWait(self.browser, 10).until(lambda _: condition())

    def find(self, name: str) -> WebElement:
        return self.browser.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return self.find(name).text

    def choose(self, path: Path) -> None:
        self.find("file").send_keys(str(path))
        self.wait(lambda: not self.browser.execute_script("return document.body.hasAttribute('data-busy')"))

    def overflows(self) -> bool:
        return self.browser.execute_script("return document.documentElement.scrollWidth > innerWidth")

    def faults(self) -> list[str]:
        """Messages of the console other than refused predictions: scripts that fail, what the CSP blocks."""
        messages = [entry["message"] for entry in self.browser.get_log("browser")]
        return [message for message in messages if "/v1/predict" not in message]


@pytest.fixture
def page(browser: webdriver.Chrome, live: LiveService) -> Page:
    return Page(browser, live.url)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pixels = draw(300, 400)
    (folder / "chest.jpg").write_bytes(jpeg(pixels))
    (folder / "chest.dcm").write_bytes(dicom(pixels))
    (folder / "cut.png").write_bytes(png(pixels)[:500])
    return folder


def test_it_opens_without_a_fault_and_says_what_it_is_for(page: Page, tiny_release: Path) -> None:
    assert "Research use only, not for diagnosis" in page.browser.find_element(By.TAG_NAME, "header").text
    assert page.text("version") == Release.load(tiny_release).facts.version
    assert not page.find("result").is_displayed()
    assert page.faults() == []


def test_an_image_gives_bars_a_heatmap_and_the_request(page: Page, live: LiveService, images: Path) -> None:
    page.choose(images / "chest.jpg")
    expected = live.client.post("/v1/predict", files={"file": (images / "chest.jpg").read_bytes()}).json()

    assert page.text("predicted") == expected["predicted"]
    rows = page.find("probabilities").find_elements(By.TAG_NAME, "li")
    for row, (name, probability) in zip(rows, expected["probabilities"].items(), strict=True):
        assert row.find_element(By.CLASS_NAME, "name").text == name
        assert row.find_element(By.CLASS_NAME, "value").text == f"{100 * probability:.1f} %"
        bar = row.find_element(By.CLASS_NAME, "bar")
        share = row.find_element(By.CLASS_NAME, "fill").rect["width"] / bar.rect["width"]
        assert share == pytest.approx(probability, abs=0.01)
        tick = row.find_element(By.CLASS_NAME, "tick")
        place = (tick.rect["x"] + tick.rect["width"] / 2 - bar.rect["x"]) / bar.rect["width"]
        assert place == pytest.approx(expected["operating_points"][name], abs=0.01)
    assert len(page.text("request-id")) == 36
    assert expected["predicted"] in page.find("status").get_attribute("textContent")
    assert page.find("heatmap").is_displayed()
    assert page.find("heatmap").rect == page.find("picture").rect
    assert page.find("picture").get_attribute("src").startswith("blob:")
    assert page.faults() == []


def test_the_slider_sets_the_opacity_from_the_keyboard(page: Page, images: Path) -> None:
    page.choose(images / "chest.jpg")
    before = float(page.find("heatmap").value_of_css_property("opacity"))
    page.find("opacity").send_keys(Keys.ARROW_RIGHT * 5)
    assert float(page.find("heatmap").value_of_css_property("opacity")) == pytest.approx(before + 0.05)
    assert page.text("opacity-value") == "65 %"


def test_a_dicom_is_shown_as_the_model_read_it(page: Page, images: Path, tiny_release: Path) -> None:
    page.choose(images / "chest.dcm")
    picture = page.find("picture")
    assert picture.get_attribute("src").startswith("data:image/png")
    size = Release.load(tiny_release).facts.pixels.size
    page.wait(lambda: picture.get_property("naturalWidth") == size)
    assert page.find("seen").is_selected()


def test_of_a_file_that_was_cropped_the_square_that_the_model_read_is_shown(
    browser: webdriver.Chrome, images: Path, tmp_path: Path
) -> None:
    release = build_release(tmp_path / "release", crop="border", margin=0.1)
    with serve(tmp_path, CXR_RELEASE=str(release)) as service:
        page = Page(browser, service.url)
        page.choose(images / "chest.jpg")
        picture = page.find("picture")
        assert picture.get_attribute("src").startswith("data:image/png")
        page.wait(lambda: picture.get_property("naturalWidth") == Release.load(release).facts.pixels.size)
        assert page.find("seen").is_selected()
        assert not page.find("seen").is_enabled()
        assert page.find("heatmap").rect == picture.rect


def test_a_region_is_shown_as_a_mask_with_its_share_of_the_image(
    browser: webdriver.Chrome, images: Path, tmp_path: Path
) -> None:
    with serve(tmp_path, CXR_RELEASE=str(build_region_release(tmp_path / "release"))) as service:
        page = Page(browser, service.url)
        page.choose(images / "chest.jpg")
        expected = service.client.post("/v1/predict", files={"file": (images / "chest.jpg").read_bytes()}).json()
        assert page.text("predicted") == "Lungs"
        assert "Found" in page.text("result")
        assert "Most probable" not in page.text("result")
        shown = [row.text for row in page.find("probabilities").find_elements(By.TAG_NAME, "li")]
        shares = expected["probabilities"].items()
        assert shown == [f"{name}\n{100 * share:.1f} %" for name, share in shares]
        assert not page.find("probabilities").find_elements(By.CLASS_NAME, "tick")
        assert page.text("legend") == "the pixels found: Lungs"
        assert page.find("heatmap").get_attribute("alt") == "Mask: Lungs"
        assert page.find("heatmap").rect == page.find("picture").rect
        assert page.faults() == []


def test_an_error_is_the_services_sentence_in_an_alert(page: Page, images: Path) -> None:
    page.choose(images / "chest.jpg")
    page.choose(images / "cut.png")
    assert page.find("error").get_attribute("role") == "alert"
    assert page.text("error") == "The image cannot be read: the PNG file is truncated at 500 bytes."
    assert not page.find("result").is_displayed()
    page.choose(images / "chest.jpg")
    assert not page.find("error").is_displayed()
    assert page.find("result").is_displayed()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """The service with a release that refuses what is no frontal chest film."""
    folder = tmp_path_factory.mktemp("strict")
    with serve(folder, CXR_RELEASE=str(build_release(folder / "release", min_content_score=0.5))) as service:
        yield service


def test_warnings_stand_above_the_answer_and_go_with_it(
    browser: webdriver.Chrome, strict: LiveService, tmp_path: Path
) -> None:
    (tmp_path / "child.dcm").write_bytes(dicom(chest_film(), PatientAge="002Y", BurnedInAnnotation="YES"))
    (tmp_path / "film.png").write_bytes(png(chest_film()))
    page = Page(browser, strict.url)
    page.choose(tmp_path / "child.dcm")
    shown = [item.text for item in page.find("warnings").find_elements(By.TAG_NAME, "li")]
    assert len(shown) == 2
    assert any(
        text.startswith("The header says 2 years; the training films") and text.endswith("18 to 90 years.")
        for text in shown
    )
    assert page.find("warnings").rect["y"] < page.find("predicted").rect["y"]
    assert "The header says 2 years" in page.find("status").get_attribute("textContent")
    assert page.text("stated") == "2 years old, letters in the picture"
    page.choose(tmp_path / "film.png")
    assert page.find("result").is_displayed()
    assert not page.find("warnings").is_displayed()
    assert not page.find("stated").is_displayed()
    assert page.faults() == []


def test_what_is_no_chest_film_is_refused_in_the_alert(
    browser: webdriver.Chrome, strict: LiveService, tmp_path: Path
) -> None:
    (tmp_path / "slice.png").write_bytes(png(not_frontal()["a CT slice"]))
    page = Page(browser, strict.url)
    page.choose(tmp_path / "slice.png")
    assert page.text("error") == (
        "The image is no upright frontal chest film: it seems to be a CT slice; "
        "send one PA or AP film of the whole chest, upright."
    )
    assert not page.find("result").is_displayed()


def test_a_dropped_image_is_classified(page: Page) -> None:
    page.browser.execute_async_script(
        """
        const done = arguments[0];
        const canvas = Object.assign(document.createElement("canvas"), {width: 90, height: 120});
        canvas.getContext("2d").fillRect(10, 10, 30, 30);
        canvas.toBlob((blob) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([blob], "dropped.png", {type: "image/png"}));
          document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
          done();
        });
        """
    )
    page.wait(lambda: page.find("result").is_displayed())
    assert page.text("file-name") == "dropped.png"


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_narrow_and_wide_light_and_dark(page: Page, images: Path, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    page.choose(images / "chest.jpg")
    assert not page.overflows()
    beside = page.find("square").rect["x"] + page.find("square").rect["width"] < page.find("predicted").rect["x"]
    assert beside == (width == 1400)
    ground = page.browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    brightness = sum(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(","))
    assert (brightness > 600) if scheme == "light" else (brightness < 150)
