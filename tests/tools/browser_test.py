"""The pages of `stepstone report` and `stepstone serve` in a real, headless Chromium.

    browser_test.py STEPSTONE MAKE_REPORT_STORE SCREENSHOTS

Goal: the page shows what is in the store and can be used with pointer, keyboard and phone, in light
and dark, however many leaves there are; it asks nobody for anything; and no name in a store can make
it do something. Method: stores made by MAKE_REPORT_STORE, looked at through the DevTools protocol.
Exit status 77: there is no browser here.
"""
import base64
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait
except ImportError:
    print("SKIPPED: python3-selenium is absent; tools/test installs it", file=sys.stderr)
    sys.exit(77)

STEPSTONE, MAKE_STORE, SCREENSHOTS = (pathlib.Path(word).absolute() for word in sys.argv[1:4])
CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    print("SKIPPED: chromium or chromium-driver is absent; tools/test installs them", file=sys.stderr)
    sys.exit(77)

PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
DESKTOP = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
WAIT_SECONDS = 60  # Until something counts as not coming at all.


def start_browser():
    options = Options()
    options.binary_location = CHROMIUM
    # Root, as in a container, has no sandbox to run it in.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--hide-scrollbars", "--no-first-run", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(service=Service(DRIVER), options=options)


def run(*words):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def setUpModule():
    global directory, browser
    directory = pathlib.Path(tempfile.mkdtemp(prefix="stepstone-browser-"))
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for kind in ("sample", "wide"):
        run(MAKE_STORE, kind, directory / kind)
        run(STEPSTONE, "report", directory / kind, "-o", directory / f"{kind}.html")
    browser = start_browser()


def tearDownModule():
    browser.quit()
    shutil.rmtree(directory)


class PageTest(unittest.TestCase):
    def open(self, page="sample", screen=None, theme="light"):
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen or DESKTOP)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                {"features": [{"name": "prefers-color-scheme", "value": theme}]})
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(page if "://" in page else (directory / f"{page}.html").as_uri())
        self.wait(lambda: self.find("#list .row"))

    def wait(self, condition):
        return WebDriverWait(browser, WAIT_SECONDS, poll_frequency=0.05).until(lambda _: condition())

    def find(self, selector):
        return browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        # In one step: what the page replaces between two would be stale.
        return self.script("return document.querySelector(arguments[0])?.innerText.trim() ?? ''", selector)

    def script(self, text, *arguments):
        return browser.execute_script(text, *arguments)

    def press(self, *keys):
        ActionChains(browser).send_keys(*keys).perform()

    def focus(self, element_id):
        self.script("document.getElementById(arguments[0]).focus()", element_id)

    def active(self, attribute, element_id="list"):
        """What a screen reader would be told of the active row; rows are made anew when the list scrolls."""
        return self.script("const host = document.getElementById(arguments[0]);"
                           "const row = document.getElementById(host.getAttribute('aria-activedescendant'));"
                           "return arguments[1] === 'text' ? row.textContent : row.getAttribute(arguments[1]);",
                           element_id, attribute)

    def expect_quiet(self, allowed=()):
        """Nothing on the console, and nothing asked of anybody but `allowed`."""
        self.assertEqual([entry["message"] for entry in browser.get_log("browser")], [])
        for entry in browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] != "Network.requestWillBeSent":
                continue
            url = message["params"]["request"]["url"]
            if not url.startswith(("file:", "data:")):
                self.assertTrue(any(url.startswith(start) for start in allowed), url)

    def screenshot(self, name):
        height = self.script("return document.documentElement.scrollHeight")
        width = self.script("return document.documentElement.clientWidth")
        picture = browser.execute_cdp_cmd("Page.captureScreenshot", {
            "captureBeyondViewport": True,
            "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}})
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))


class ReportTest(PageTest):
    def test_shows_the_store_and_asks_nobody(self):
        self.open()
        self.assertEqual(self.text("h1"), "sample")
        self.assertIn("11 steps, 0 to 2400", self.text("#summary"))
        self.assertEqual(len(self.find("#size-chart .written-bar")), 11)
        self.assertGreater(len(self.find("#size-chart .shared-bar[height]")), 0)
        self.assertEqual(self.find("#metric-name option")[0].get_attribute("value"), "loss")
        facts = self.text("#kept-facts")
        self.assertIn("Each is a multiple of 100.", facts)
        self.assertIn("The lowest loss among them is", facts)
        self.assertIn("The trainer keeps the newest 4 and multiples of 300, as it said with its last save.", facts)
        tags = [[tag.text for tag in row.find_elements(By.CSS_SELECTOR, ".tag")] for row in self.find("#kept-table .row")]
        self.assertIn("the newest 4", tags[0])
        self.assertIn("multiples of 300", tags[0])  # Step 2400.
        self.assertIn("the newest 4", tags[1])
        self.assertNotIn("multiples of 300", tags[1])
        self.assertNotIn("the newest 4", tags[4])
        self.assertEqual(self.text("#kept-readout"),
                         "Step 2400 · the newest 4 · multiples of 300 · highest accuracy · NaN or infinity")
        self.expect_quiet()

    def test_says_where_a_nan_first_appeared(self):
        self.open()
        alert = self.text("#alerts")
        self.assertIn("params/layers[2]/mlp/up first at measured step 2100", alert)
        next(b for b in self.find("#alerts button") if b.text == "params/layers[2]/mlp/up").click()
        self.assertEqual(self.text("#detail .path"), "params/layers[2]/mlp/up")
        self.assertEqual(len(self.find("#detail .bad-mark")), 4)
        self.assertIn("first at measured step 2100", self.text("#detail"))
        self.assertEqual(self.active("aria-selected"), "true")

    def test_names_that_are_markup_stay_text(self):
        self.open()
        self.find("#filter")[0].send_keys("onerror")
        self.assertEqual(self.text("#list .row .name"), "<\\/script><img src=x onerror=alert(1)>")
        self.find("#list .row")[0].click()
        self.assertEqual(self.text("#detail .path"), "<\\/script><img src=x onerror=alert(1)>")
        self.assertEqual(self.find("img, iframe, object"), [])
        self.assertEqual(len(self.find("script")), 1)
        self.expect_quiet()

    def test_policy_lets_no_other_script_or_connection_in(self):
        self.open()
        ran = self.script("const s = document.createElement('script'); s.textContent = 'window.intruder = 1';"
                          "document.body.append(s); return window.intruder === 1;")
        self.assertFalse(ran)
        reached = browser.execute_async_script(
            "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('reached'), (e) => done(e.name));")
        self.assertEqual(reached, "TypeError")
        refusals = [entry["message"] for entry in browser.get_log("browser")]
        self.assertTrue(any("script-src" in text for text in refusals), refusals)
        self.assertTrue(any("connect-src" in text for text in refusals), refusals)

    def test_filters_by_words_patterns_and_expressions(self):
        self.open()
        field = self.find("#filter")[0]
        for wanted, count in (("mlp bias", "12 of 102"), ("params/layers[?]/norm/*", "6 of 102"),
                              ("/^params.*(query|key)$/", "12 of 102"), ("nothing of the kind", "0 of 102")):
            field.clear()
            field.send_keys(wanted)
            self.assertIn(count, self.text("#match-count"), wanted)
        field.clear()
        field.send_keys("/(/")
        self.assertIn("Not a regular expression", self.text("#match-count"))
        field.send_keys(Keys.ESCAPE)
        self.assertEqual(field.get_attribute("value"), "")
        self.assertEqual(self.text("#match-count"), "102 leaves")
        self.expect_quiet()

    def test_orders_by_size_norm_and_nan(self):
        self.open()
        order = Select(self.find("#order")[0])
        order.select_by_value("size")
        self.assertEqual(self.text("#list .row .name"), "params/embedding")
        order.select_by_value("bad")
        self.assertIn("NaN", self.text("#list .row"))
        order.select_by_value("norm")
        self.assertEqual(self.text("#list .row .name"), "optimizer/count")

    def test_choosing_a_leaf_shows_figures_norms_and_histogram(self):
        self.open()
        self.find("#filter")[0].send_keys("params/embedding")
        self.find("#list .row")[0].click()
        detail = self.text("#detail")
        for words in ("float32", "(3000, 96)", "288,000", "1.10 MiB", "Norm over 11 measured steps", "Histogram"):
            self.assertIn(words, detail)
        self.assertEqual(len(self.find("#detail .bin")), 32)
        bins = self.script("return [...document.querySelectorAll('#detail .bin title')].map((t) => t.textContent)")
        counted = sum(int(text.rsplit(": ", 1)[1].replace(",", "")) for text in bins)
        self.assertEqual(counted, 288000)
        # An older step; its bytes are those of the one before, which the page says.
        select = Select(self.find("#detail select")[0])
        self.assertEqual(len(select.options), 11)
        select.select_by_visible_text("step 600")
        self.assertIn("The same bytes as in the measured step before.", self.text("#detail"))
        self.expect_quiet()

    def test_leaves_can_be_walked_and_chosen_with_the_keyboard(self):
        self.open()
        self.press("/")
        self.assertEqual(self.script("return document.activeElement.id"), "filter")
        self.press("layers[0]/attention", Keys.ARROW_DOWN)
        self.assertEqual(self.script("return document.activeElement.id"), "list")
        self.press(Keys.ARROW_DOWN, Keys.ENTER)
        self.assertEqual(self.text("#detail .path"), self.active("title"))
        self.press(Keys.END)
        self.assertEqual(self.active("aria-posinset"), self.active("aria-setsize"))

    def test_tree_opens_and_closes_with_the_keyboard(self):
        self.open()
        self.focus("list")
        self.press(Keys.HOME)
        while self.active("aria-expanded") is None:
            self.press(Keys.ARROW_DOWN)
        group = self.active("text")
        before = int(self.active("aria-setsize"))
        self.assertEqual(self.active("aria-expanded"), "true")
        self.press(Keys.ARROW_LEFT)
        self.assertEqual(self.active("aria-expanded"), "false")
        self.assertLess(int(self.active("aria-setsize")), before)
        self.press(Keys.ARROW_RIGHT)
        self.assertEqual(int(self.active("aria-setsize")), before)
        self.press(Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
        self.assertEqual(self.active("text"), group)

    def test_steps_are_chosen_with_keys_and_pointer(self):
        self.open()
        self.assertIn("Step 2400", self.text("#step-readout"))
        self.focus("size-chart")
        self.press(Keys.ARROW_LEFT)
        self.assertIn("Step 2300", self.text("#step-readout"))
        self.press(Keys.HOME)
        self.assertIn("Step 0 ", self.text("#step-readout"))
        self.assertIn("Step 0 ", self.find("#size-chart")[0].get_attribute("aria-valuetext"))
        self.find("#kept-table .row")[1].click()
        self.assertIn("Step 2300", self.text("#step-readout"))
        chart = self.find("#size-chart")[0]
        ActionChains(browser).move_to_element_with_offset(chart, chart.size["width"] // 2 - 30, 0).click().perform()
        self.assertIn("Step 2400", self.text("#step-readout"))

    def test_tree_map_opens_groups_and_chooses_leaves(self):
        self.open()
        self.focus("map")
        self.press(Keys.ARROW_RIGHT)
        self.assertNotEqual(self.text("#map-readout"), "")
        before = self.text("#map-path")
        self.press(Keys.HOME)
        self.script("document.getElementById('map').querySelector('.tile.group').click()")
        self.assertNotEqual(self.text("#map-path"), before)
        self.focus("map")
        self.press(Keys.BACKSPACE)
        self.assertEqual(self.text("#map-path"), before)
        next(tile for tile in self.find("#map .tile.leaf") if tile.text.startswith("embedding")).click()
        self.assertEqual(self.text("#detail .path"), "params/embedding")
        self.expect_quiet()

    def test_fits_phone_and_desktop_in_light_and_dark(self):
        brightness = {}
        for screen_name, screen in (("phone", PHONE), ("desktop", DESKTOP)):
            for theme in ("light", "dark"):
                self.open(screen=screen, theme=theme)
                self.assertLessEqual(self.script("return document.documentElement.scrollWidth"), screen["width"])
                outside = self.script(
                    "return [...document.querySelectorAll('h1, h2, p, dd, dt, button, input, select, figure, .card, .row .number')]"
                    ".filter((e) => e.offsetParent && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))")
                self.assertEqual(outside, [])
                colours = self.script("const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]")
                brightness[theme] = [sum(int(part) for part in colour[4:-1].split(",")) for colour in colours]
                self.screenshot(f"report-{screen_name}-{theme}")
                self.expect_quiet()
        self.assertGreater(brightness["light"][0], 600)
        self.assertLess(brightness["light"][1], 200)
        self.assertLess(brightness["dark"][0], 120)
        self.assertGreater(brightness["dark"][1], 500)

    def test_a_hundred_thousand_leaves_take_bounded_work(self):
        self.open("wide")
        self.assertEqual(self.text("#match-count"), "100,000 leaves")
        # What is in the document does not grow with the leaves.
        count_nodes = "return document.getElementsByTagName('*').length"
        self.assertLess(self.script(count_nodes), 1500)
        Select(self.find("#order")[0]).select_by_value("path")
        self.focus("list")
        self.press(Keys.END)
        self.assertEqual(self.active("aria-posinset"), "100000")
        last = self.active("title")
        self.press(Keys.ENTER)
        self.assertEqual(self.text("#detail .path"), last)
        self.find("#filter")[0].send_keys("block_7/expert_24?/up")
        self.assertIn("10 of 100,000", self.text("#match-count"))
        self.assertLess(self.script(count_nodes), 1500)
        self.screenshot("report-100000-leaves")
        self.expect_quiet()


class ServeTest(PageTest):
    def setUp(self):
        self.store = directory / "live"
        shutil.copytree(directory / "sample", self.store)
        self.server = subprocess.Popen([STEPSTONE, "serve", self.store, "--json"], stdout=subprocess.PIPE, text=True)
        self.url = json.loads(self.server.stdout.readline())["url"]
        self.origin = self.url.split("?")[0]

    def tearDown(self):
        self.server.send_signal(signal.SIGTERM)
        self.assertEqual(self.server.wait(WAIT_SECONDS), 0)
        self.server.stdout.close()
        shutil.rmtree(self.store)

    def test_follows_the_run_and_measures_what_is_chosen(self):
        self.open(self.url)
        self.wait(lambda: self.text("#live").startswith("live"))
        self.find("#filter")[0].send_keys("params/layers[2]/mlp/up")
        self.find("#list .row")[0].click()
        self.wait(lambda: "Norm over 11 measured steps" in self.text("#detail"))
        self.assertEqual(len(self.find("#detail .bin")), 32)
        self.assertEqual(len(self.find("#detail .bad-mark")), 4)
        run(MAKE_STORE, "grow", self.store)
        self.wait(lambda: "to 2500" in self.text("#summary"))
        self.assertEqual(self.find("#filter")[0].get_attribute("value"), "params/layers[2]/mlp/up")
        self.assertEqual(self.text("#detail .path"), "params/layers[2]/mlp/up")
        self.wait(lambda: "Histogram" in self.text("#detail"))
        self.screenshot("serve-desktop-light")
        self.expect_quiet(allowed=[self.origin])

    def test_without_the_token_there_is_nothing(self):
        for path in ("", "data", "statistics", "data?token=0", "?token="):
            with self.assertRaises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(self.origin + path)
            self.assertEqual(refused.exception.code, 403, path)
            refused.exception.close()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:], verbosity=2)
