import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.errors import UserError
from ganvas.evaluation.labels import PAIRED_LABELS, MetricLabel
from ganvas.evaluation.report.writer import write_report

LABELS = PAIRED_LABELS | {"cycle_l1": MetricLabel("Cycle L1", "lower"), "recall": MetricLabel("Recall", "higher", 3)}


def written(run: Path) -> str:
    return write_report(run, LABELS).read_text(encoding="utf-8")


def edit_evaluation(run: Path, **changes: object) -> None:
    path = run / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_log(run: Path, *lines: str) -> None:
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def scores(html: str) -> list[list[str]]:
    """Return the rows of the evaluation's table; the best score has a star."""
    table = ElementTree.fromstring(re.search(r'<table class="scores">.*?</table>', html, re.DOTALL)[0])
    return [
        [" ".join("".join(cell.itertext()).split()) + "*" * (cell.get("class") == "better") for cell in row]
        for row in table.iter("tr")
    ]


def charts(html: str) -> list[str]:
    return re.findall(r'class="chart".*?<figcaption>(.*?)<', html)


def test_the_report_is_in_the_run_and_deterministic(make_run):
    run = make_run(samples=True)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    report = write_report(run, LABELS)
    first = report.read_bytes()

    assert report == run / "report.html"
    assert write_report(run, LABELS).read_bytes() == first
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before | {report: first}


def test_nothing_is_loaded_from_elsewhere(make_run):
    html = written(make_run(samples=True))
    assert "http" not in re.sub('http-equiv="Content-Security-Policy"', "", html)
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)', html))
    assert html.count('src="data:image/png') == 7
    assert "default-src 'none'" in html


def test_all_texts_are_escaped(make_run):
    run = make_run()
    edit_evaluation(run, notes=["<note>"])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1200, "warning": "all alike <b>", "<img src=x onerror=alert(1)>": 2}\n')
    html = written(run)
    assert not re.search("<script>alert|<b>alike|<note>|<img", html)
    assert html.count("&lt;script&gt;alert(&#39;data&#39;)&lt;/script&gt;&#34; &amp; more") == 2
    assert "<h1>earth &amp; &#39;demo&#39;</h1>" in html
    assert "<li>Step 1,200: all alike &lt;b&gt;</li>" in html


def test_related_values_share_a_chart(make_run):
    assert charts(written(make_run())) == [
        "Adversarial losses",
        "Reconstruction losses",
        "Loss of the generator, weighted sum",
        "Validation: L1",
        "Validation: PSNR, dB",
        "Validation: SSIM",
        "Learning rate",
        "Images per second",
    ]


def test_unknown_values_get_charts_of_their_own(make_run):
    run = make_run(steps=0)
    write_log(run, '{"step": 1, "accuracy_d": 0.5, "note": "text", "loss_x": 1}')
    assert charts(written(run)) == ["Further losses", "accuracy_d"]


def test_figures_at_the_top(make_run):
    html = written(make_run())
    tiles = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)<small>", html))
    assert tiles["Steps"] == "1,200"
    assert tiles["Epoch"] == "21"
    assert tiles["Training time"] == "2 min 48 s"
    assert 26 < float(tiles["Speed"]) < 30
    assert 0.13 < float(tiles["Validation L1"]) < 0.16
    assert "pix2pix · map → terrain" in html
    assert "Warnings in training" not in html


def test_the_better_of_score_and_baseline_is_marked(make_run):
    assert scores(written(make_run())) == [
        ["metric", "model", "trivial baseline"],
        ["L1 (lower is better)", "0.1432 [0.1311, 0.1553]*", "0.1467 [0.1350, 0.1584]"],
        ["PSNR, dB (higher is better)", "16.53 [15.92, 17.14]*", "16.11 [15.56, 16.66]"],
        ["SSIM (higher is better)", "0.4123 [0.3822, 0.4424]", "0.4391 [0.4108, 0.4674]*"],
        ["Sliced Wasserstein distance (lower is better)", "0.1911*", "0.6022"],
    ]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.006, -0.001, "−0.0035 .*; the model is closer than the baseline"),
        (0.001, 0.006, "0.0035 .*; the baseline is closer than the model"),
        (-0.001, 0.006, "0.0025 .*; there is no significant difference"),
    ],
)
def test_the_paired_difference_is_a_sentence(make_run, low, high, verdict):
    run = make_run()
    edit_evaluation(run, l1_minus_baseline={"mean": (low + high) / 2, "low": low, "high": high})
    assert re.search(verdict, written(run))


def test_an_evaluation_without_a_baseline(make_run):
    run = make_run()
    edit_evaluation(run, baseline=None, l1_minus_baseline=None)
    html = written(run)
    assert scores(html)[1] == ["L1 (lower is better)", "0.1432 [0.1311, 0.1553]"]
    assert "baseline" not in html


def test_metrics_of_two_directions_have_baselines(make_run):
    run = make_run()
    metrics = {"l1_a2b": {"mean": 0.19}, "sliced_wasserstein_b2a": {"mean": 0.3}, "cycle_l1_a": {"mean": 0.1}}
    baselines = {"flat a2b": {"l1": 0.2}, "copy a2b": {"l1": 0.15}, "flat b2a": {"sliced_wasserstein": 0.9}}
    edit_evaluation(run, metrics=metrics, baseline=None, l1_minus_baseline=None, baselines=baselines, notes=["Sizes."])
    html = written(run)
    assert scores(html) == [
        ["metric", "model", "flat", "copy"],
        ["L1, a2b (lower is better)", "0.1900", "0.2000", "0.1500*"],
        ["Sliced Wasserstein distance, b2a (lower is better)", "0.3000*", "0.9000", "–"],
        ["Cycle L1, a (lower is better)", "0.1000", "–", "–"],
    ]
    assert '<p class="soft">Sizes.</p>' in html


def test_real_against_real_is_shown_and_never_best(make_run):
    run = make_run()
    edit_evaluation(run, real={"sliced_wasserstein": {"mean": 0.01, "n": 40}})
    rows = scores(written(run))
    assert rows[0] == ["metric", "model", "trivial baseline", "real against real"]
    assert rows[-1][1:] == ["0.1911*", "0.6022", "0.0100"]
    assert rows[1][-1] == "–"


def test_a_ceiling_is_shown_and_no_best_marked(make_run):
    run = make_run()
    metrics = {"recall": {"mean": 0.7}, "unknown": {"mean": 1}}
    edit_evaluation(run, metrics=metrics, ceiling={"recall": {"mean": 0.86}}, baseline=None)
    assert scores(written(run)) == [
        ["metric", "model", "real test images"],
        ["Recall (higher is better)", "0.700", "0.860"],
        ["unknown", "1.0000", "–"],
    ]


@pytest.mark.parametrize("steps", [0, 10])
def test_a_run_that_has_just_begun(make_run, steps):
    html = written(make_run(steps=steps, evaluated=False))
    assert "There are no sample images yet." in html
    assert ("Nothing is logged yet." in html) == (steps == 0)
    assert "Evaluation" not in html


def test_samples_are_the_first_the_latest_and_some_between(make_run):
    assert re.findall(r"<figcaption>step ([\d,]*\d)(.*?)</figcaption>", written(make_run(samples=True))) == [
        ("1,200", ", the latest"),
        *((step, "") for step in ("100", "300", "500", "700", "800", "1,000")),
    ]


def test_an_unreadable_sample_is_reported_in_its_place(make_run):
    run = make_run(samples=True)
    content = (run / "samples/step-00001200.png").read_bytes()
    (run / "samples/step-00001200.png").write_bytes(content[: len(content) // 2])
    (run / "samples/step-.png").write_bytes(content)
    html = written(run)
    assert html.count("The file cannot be read.") == 1
    assert html.count("<img") == 6


@pytest.mark.slow
def test_large_samples_are_made_smaller(make_run):
    """Noise compresses least: with it, no run's page can be larger."""
    run = make_run(steps=0)
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1500, 3), dtype=np.uint8)
    first = run / "samples/step-00000001.png"
    Image.fromarray(noise).save(first, compress_level=0)
    for step in range(2, 9):
        shutil.copy(first, run / f"samples/step-{step:08d}.png")
    assert 1_000_000 < write_report(run, LABELS).stat().st_size < 10_000_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "is not valid JSON"),
        ("model/config.json", "[]", "is not a JSON object"),
        ("evaluation.json", '{"metrics": 5}', "metrics"),
        ("evaluation.json", "", "is not valid JSON"),
    ],
)
def test_a_damaged_file_is_named(make_run, name, content, message):
    run = make_run()
    (run / name).write_text(content)
    with pytest.raises(UserError, match=message) as failure:
        written(run)
    assert str(run / name) in str(failure.value)


@pytest.mark.parametrize(
    ("name", "message"), [("missing", "there is no such folder"), ("file", "no such folder"), ("", r"config\.json")]
)
def test_a_folder_that_is_not_a_run_is_refused(tmp_path, name, message):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        written(tmp_path / name)


@pytest.mark.parametrize(
    "networks", [[], [{"source": "a", "target": "b"}], {"a2b": [1]}, {"a2b": {"source": "a"}}, None]
)
def test_an_invalid_model_config_is_ignored(make_run, networks):
    run = make_run(steps=0)
    (run / "model" / "config.json").write_text(json.dumps({"kind": "pix2pix", "networks": networks}))
    assert "earth" in written(run)


def test_a_name_that_is_not_utf8_is_an_escape(make_run):
    run = make_run(steps=0)
    (run / "config.json").write_text('{"data": {"data": "na\\udcefve"}}')
    assert "na\\udcefve" in written(run)


# --- the log ---


def test_a_torn_last_line_is_skipped(make_run):
    run = make_run()
    before = written(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1210, "loss_d": 0.4')
    assert written(run) == before


BAD_LINES = ['{"step": 5, "loss', "[1, 2]", '{"loss_d": 1}', '{"step": "x"}', "null", "[" * 100_000]
BAD_LINES += [f'{{"step": {step}}}' for step in ("9" * 5000, "1e999", "-1", "true", "2.5")]


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_damaged_line_in_the_middle_is_named(make_run, line):
    run = make_run(steps=0)
    write_log(run, '{"step": 1, "loss_d": 1}', line, '{"step": 9, "loss_d": 1}')
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is not a record"):
        written(run)


def test_values_that_are_never_finite_are_left_out(make_run):
    run = make_run(steps=0)
    write_log(run, '{"step": 1, "loss_d": 1, "loss_x": NaN}', '{"step": 2, "loss_d": Infinity, "loss_x": NaN}')
    assert charts(written(run)) == ["Adversarial losses"]


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 2, "loss_d": Infinity, "loss_g": -Infinity, "loss_x": NaN}',
        '{"step": 2, "loss_d": 1e308, "loss_g": -1e308, "lr": 1e308}',
        '{"step": 2, "loss_d": 5e-324, "loss_g": -5e-324, "lr": 5e-324}',
        '{"step": 2, "loss_d": null, "loss_g": [1], "lr": "x"}',
        '{"step": 2, "loss_d": ' + "9" * 90 + "}",
        '{"step": 2, "warning": 5}\n{"step": 2, "warning": {}}',
        '{"step": 2, "seconds": 1e308, "epoch": 1e308, "images_per_second": 1e308}',
    ],
    ids=["infinite", "huge", "tiny", "null", "long", "odd warnings", "huge figures"],
)
def test_values_out_of_range_are_left_out(make_run, line):
    run = make_run(steps=0)
    first = '{"step": 1, "loss_d": 1, "loss_g": 2, "lr": 0, "seconds": 90, "epoch": 3, "images_per_second": 5}'
    write_log(run, first, line, '{"step": 3, "loss_d": 3}')
    html = written(run)
    assert "Adversarial losses" in html
    assert not re.search(r"[ML]\S*(nan|inf)", html)
    assert "1 min 30 s" in html


# --- in a browser ---


@pytest.fixture
def open_page(browser):
    """Return a function that opens a file, and collects the errors and requests that come up meanwhile."""
    contexts = []

    def open_file(path: Path, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.errors, page.requests = [], []
        page.on("console", lambda message: page.errors.append(message.text))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()


@pytest.mark.slow
@pytest.mark.essential
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_page_in_a_browser(make_run, open_page, scheme, width):
    report = write_report(make_run(samples=True), LABELS)
    page = open_page(report, viewport={"width": width, "height": 900}, color_scheme=scheme)

    assert page.errors == []
    assert [url for url in page.requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.title() == "earth & 'demo': training report"
    headings = ["Images", "Evaluation", "Curves", "Options of the run", "Model"]
    assert page.locator("h2").all_inner_texts() == headings
    assert page.evaluate("[...document.images].map((image) => image.complete && image.naturalWidth > 0)") == [True] * 7
    assert page.locator(".chart svg").count() == 8
    for chart in page.locator(".chart svg").all():
        assert chart.bounding_box()["height"] > 120
    assert page.evaluate("document.documentElement.scrollWidth") == width  # nothing to scroll sideways
    ink, paper = (
        page.evaluate(f"getComputedStyle(document.body).{name}.match(/\\d+/g).map(Number)")
        for name in ("color", "backgroundColor")
    )
    assert (sum(ink) > 600, sum(paper) < 100) == ((True, True) if scheme == "dark" else (False, False))


@pytest.mark.slow
def test_page_shows_values_under_the_pointer_and_the_latest_elsewhere(make_run, open_page):
    run = make_run()
    page = open_page(write_report(run, LABELS), viewport={"width": 1280, "height": 900})
    chart = page.locator(".chart").first
    latest = chart.inner_text()
    chart.locator("svg").hover()

    step = int(chart.locator("figcaption").inner_text().removeprefix("Adversarial losses, step "))
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    loss_d = next(record["loss_d"] for record in log if record["step"] == step)
    assert 400 < step < 800
    assert float(chart.locator("b").first.inner_text()) == pytest.approx(loss_d, rel=1e-3)
    page.mouse.move(0, 0)
    assert chart.inner_text() == latest


@pytest.mark.slow
def test_page_shows_a_small_sample_large_after_a_click(make_run, open_page):
    page = open_page(write_report(make_run(samples=True), LABELS), viewport={"width": 1280, "height": 900})
    sample = page.locator(".samples img").first
    small = sample.bounding_box()["width"]
    sample.click()
    assert sample.bounding_box()["width"] == sample.evaluate("(image) => image.naturalWidth") > 1.5 * small


@pytest.mark.slow
def test_page_needs_no_script(make_run, open_page):
    page = open_page(write_report(make_run(), LABELS), java_script_enabled=False)
    assert page.errors == []
    assert page.locator(".chart svg").count() == 8
    assert page.locator(".legend li").first.inner_text().startswith("loss_d 0.")
