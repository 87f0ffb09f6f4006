import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.errors import UserError
from ganvas.evaluation.report.writer import write_report


def written(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def edit_evaluation(run: Path, **changes: object) -> None:
    path = run / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_report_lies_in_the_run_and_is_the_same_every_time(make_run):
    run = make_run()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    report = write_report(run)
    first = report.read_bytes()

    assert report == run / "report.html"
    assert write_report(run).read_bytes() == first
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before | {report: first}


def test_nothing_is_loaded_from_elsewhere(make_run):
    html = written(make_run())
    assert "http" not in re.sub('http-equiv="Content-Security-Policy"', "", html)
    assert all(source.startswith("data:image/") for source in re.findall(r'(?:src|href)="([^"]{11})', html)[1:])
    assert "default-src 'none'" in html


def test_texts_of_the_run_are_escaped(make_run):
    html = written(make_run())
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(&#x27;data&#x27;)&lt;/script&gt;&quot; &amp; more") == 2
    assert "<h1>earth &amp; &#x27;demo&#x27;</h1>" in html


def test_log_keys_are_escaped(make_run):
    run = make_run(steps=0)
    (run / "metrics.jsonl").write_text('{"step": 1, "<img src=x onerror=alert(1)>": 2}\n')
    assert "<img src=x" not in written(run)


@pytest.mark.parametrize(
    "title",
    [
        "Adversarial losses",
        "Reconstruction losses",
        "Loss of the generator, weighted sum",
        "Validation: L1",
        "Validation: PSNR, dB",
        "Validation: SSIM",
        "Learning rate",
        "Images per second",
    ],
)
def test_a_curve_for(title, make_run):
    assert written(make_run()).count(f"<figcaption>{title}</figcaption>") == 1


def test_unknown_values_get_curves_of_their_own(make_run):
    run = make_run(steps=0)
    (run / "metrics.jsonl").write_text('{"step": 1, "accuracy_d": 0.5, "note": "text", "loss_x": 1}\n')
    html = written(run)
    assert re.findall(r'class="chart".*?<figcaption>(.*?)<', html) == ["Further losses", "accuracy_d"]


def test_figures_at_the_top(make_run):
    html = written(make_run())
    tiles = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)<small>", html))
    assert tiles["Steps"] == "1,200"
    assert tiles["Epoch"] == "21"
    assert tiles["Training time"] == "2 min 48 s"
    assert 26 < float(tiles["Speed"]) < 30
    assert 0.13 < float(tiles["Validation L1"]) < 0.16
    assert "pix2pix · map → terrain" in html


def test_scores_stand_beside_the_baseline_and_the_better_is_marked(make_run):
    html = written(make_run())
    rows = re.findall(r'<tr><th scope="row">(.*?) <span.*?</th><td(.*?)>(.*?)</td><td(.*?)>(.*?)</td></tr>', html)
    better = ' class="better"'

    assert [(name, mine, theirs) for name, mine, _, theirs, _ in rows] == [
        ("L1", better, ""),
        ("PSNR, dB", better, ""),
        ("SSIM", "", better),
        ("Sliced Wasserstein distance", better, ""),
    ]
    assert rows[0][2] == '0.1432 <span class="soft">[0.1311, 0.1553]</span>'
    assert rows[3][4] == "0.6022"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.006, -0.001, "the model is closer than the baseline"),
        (0.001, 0.006, "the baseline is closer than the model"),
        (-0.001, 0.006, "the two cannot be told apart"),
    ],
)
def test_the_paired_difference_is_put_in_words(make_run, low, high, verdict):
    run = make_run()
    edit_evaluation(run, l1_minus_baseline={"mean": (low + high) / 2, "low": low, "high": high})
    assert verdict in written(run)


def test_an_evaluation_without_a_baseline(make_run):
    run = make_run()
    edit_evaluation(run, baseline=None, l1_minus_baseline=None)
    html = written(run)
    assert "0.1432" in html
    assert "baseline" not in html
    assert '<td class="better"' not in html


def test_metrics_of_two_directions_stand_beside_their_baselines(make_run):
    run = make_run()
    metrics = {"l1_a2b": {"mean": 0.19}, "sliced_wasserstein_b2a": {"mean": 0.3}, "cycle_l1_a": {"mean": 0.1}}
    baselines = {"flat a2b": {"l1": 0.2}, "copy a2b": {"l1": 0.15}, "flat b2a": {"sliced_wasserstein": 0.9}}
    notes = ["Sizes <differ>."]
    edit_evaluation(run, metrics=metrics, baseline=None, l1_minus_baseline=None, baselines=baselines, notes=notes)
    table = re.search(r'<table class="scores">.*?</table>', written(run))[0]
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == ["metric", "model", "flat", "copy"]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table)
    lower = ' <span class="soft">(lower is better)</span>'
    assert rows == [
        (f"L1, a2b{lower}", '<td>0.1900</td><td>0.2000</td><td class="better">0.1500</td>'),
        (f"Sliced Wasserstein distance, b2a{lower}", '<td class="better">0.3000</td><td>0.9000</td><td>–</td>'),
        (f"L1 of the way there and back, a{lower}", "<td>0.1000</td><td>–</td><td>–</td>"),
    ]
    assert "Sizes &lt;differ&gt;." in written(run)


def test_a_ceiling_stands_beside_and_nothing_wins(make_run):
    run = make_run()
    edit_evaluation(run, metrics={"recall": {"mean": 0.7}}, ceiling={"recall": {"mean": 0.86}}, baseline=None)
    html = written(run)
    assert "real test images" in html
    assert "0.860" in html
    assert 'class="better"' not in html


def test_warnings_of_the_watch_are_shown_and_escaped(make_run):
    run = make_run()
    assert "Warnings in training" not in written(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 1200, "warning": "all alike <b>"}) + "\n")
    assert "<li>Step 1,200: all alike &lt;b&gt;</li>" in written(run)


@pytest.mark.parametrize("steps", [0, 10])
def test_a_run_that_has_only_begun(make_run, steps):
    html = written(make_run(steps=steps, evaluated=False))
    assert "There are no sample images yet." in html
    assert ("Nothing is logged yet." in html) == (steps == 0)
    assert "Evaluation" not in html


def test_a_torn_last_line_is_passed_over(make_run):
    run = make_run()
    whole = written(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1210, "loss_d": 0.4')
    assert written(run) == whole


@pytest.mark.parametrize("line", ['{"step": 5, "loss', "[1, 2]", '{"loss_d": 1}', '{"step": "x"}', "null"])
def test_a_damaged_line_in_the_middle_is_named(make_run, line):
    run = make_run(steps=0)
    (run / "metrics.jsonl").write_text(f'{{"step": 1, "loss_d": 1}}\n{line}\n{{"step": 9, "loss_d": 1}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is no record"):
        write_report(run)


def test_values_that_are_not_finite_do_not_hide_the_others(make_run):
    run = make_run(steps=0)
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "loss_d": 1, "loss_x": NaN}\n{"step": 2, "loss_d": Infinity, "loss_x": NaN}\n'
    )
    assert re.findall(r'class="chart".*?<figcaption>(.*?)<', written(run)) == ["Adversarial losses"]


def test_pictures_are_the_latest_the_first_and_some_between(make_run):
    html = written(make_run())
    assert re.findall(r"<figcaption>step ([\d,]*\d)(.*?)</figcaption>", html) == [
        ("1,200", ", the latest"),
        *((step, "") for step in ("100", "300", "500", "700", "800", "1,000")),
    ]


def test_an_unreadable_picture_is_told(make_run):
    run = make_run()
    content = (run / "samples/step-00001200.png").read_bytes()
    (run / "samples/step-00001200.png").write_bytes(content[: len(content) // 2])
    (run / "samples/step-.png").write_bytes(content)
    html = written(run)
    assert html.count("The file cannot be read.") == 1
    assert html.count("<img") == 6


def test_large_pictures_are_made_smaller(make_run):
    """Noise is what compresses least: with it, no run's page can be larger."""
    run = make_run(steps=0)
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1500, 3), dtype=np.uint8)
    first = run / "samples/step-00000001.png"
    Image.fromarray(noise).save(first)
    for step in range(2, 9):
        shutil.copy(first, run / f"samples/step-{step:08d}.png")

    size = write_report(run).stat().st_size
    assert 1_000_000 < size < 10_000_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "is no JSON"),
        ("model/config.json", "[]", "is no JSON object"),
        ("evaluation.json", '{"metrics": 5}', "metrics"),
        ("evaluation.json", "", "is no JSON"),
    ],
)
def test_a_damaged_file_is_named(make_run, name, content, message):
    run = make_run()
    (run / name).write_text(content)
    with pytest.raises(UserError, match=message) as failure:
        write_report(run)
    assert str(run / name) in str(failure.value)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(UserError, match=r"is no run, it has no config\.json"):
        write_report(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="there is no such folder"):
        write_report(tmp_path / "file")


# --- in a browser ---


@pytest.fixture
def open_page(browser):
    """Give a function that opens a file, and the complaints and requests that come up meanwhile."""
    contexts = []

    def open_file(path: Path, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.slow
@pytest.mark.essential
def test_page_in_a_browser(make_run, open_page, scheme, width):
    report = write_report(make_run())
    page = open_page(report, viewport={"width": width, "height": 900}, color_scheme=scheme)

    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.title() == "earth & 'demo': training report"
    headings = ["Pictures", "Evaluation", "Curves", "Options of the run", "Model"]
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
    page = open_page(write_report(run), viewport={"width": 1280, "height": 900})
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
def test_page_shows_a_small_picture_large_after_a_click(make_run, open_page):
    page = open_page(write_report(make_run()), viewport={"width": 1280, "height": 900})
    picture = page.locator(".samples img").first
    small = picture.bounding_box()["width"]
    picture.click()
    assert picture.bounding_box()["width"] == picture.evaluate("(image) => image.naturalWidth") > 1.5 * small


@pytest.mark.slow
def test_page_needs_no_script(make_run, open_page):
    page = open_page(write_report(make_run()), java_script_enabled=False)
    assert page.complaints == []
    assert page.locator(".chart svg").count() == 8
    assert page.locator(".legend li").first.inner_text().startswith("loss_d 0.")


HUGE = {
    "infinite": '{"step": 2, "loss_d": Infinity, "loss_g": -Infinity, "loss_x": NaN}',
    "huge": '{"step": 2, "loss_d": 1e308, "loss_g": -1e308, "lr": 1e308}',
    "tiny": '{"step": 2, "loss_d": 5e-324, "loss_g": -5e-324, "lr": 5e-324}',
    "null": '{"step": 2, "loss_d": null, "loss_g": [1], "lr": "x"}',
    "long": '{"step": 2, "loss_d": ' + "9" * 90 + "}",
    "odd warnings": '{"step": 2, "warning": 5}\n{"step": 2, "warning": {}}\n{"step": 2, "warning": "<b>"}',
}


@pytest.mark.parametrize("lines", HUGE.values(), ids=HUGE)
@pytest.mark.filterwarnings("error")
def test_values_that_no_axis_can_show_do_not_end_the_report(make_run, lines):
    run = make_run(steps=0)
    first = '{"step": 1, "loss_d": 1, "loss_g": 2, "lr": 0}\n'
    (run / "metrics.jsonl").write_text(f'{first}{lines}\n{{"step": 3, "loss_d": 3}}\n')
    html = written(run)
    assert "Adversarial losses" in html
    assert not re.search(r"[ML]\S*(nan|inf)", html)
    assert ("&lt;b&gt;" in html) == ("<b>" in lines)


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"step": ' + "9" * 5000 + "}",
        *(f'{{"step": {step}}}' for step in ("1e999", "-1", "true", "2.5")),
    ],
    ids=["deep", "long", "infinite", "negative", "boolean", "half"],
)
def test_a_line_that_breaks_a_reader_is_named(make_run, line):
    run = make_run(steps=0)
    (run / "metrics.jsonl").write_text(f'{{"step": 1, "loss_d": 1}}\n{line}\n{{"step": 9, "loss_d": 1}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is no record"):
        write_report(run)


@pytest.mark.parametrize(
    "networks", [[], [{"source": "a", "target": "b"}], {"a2b": [1]}, {"a2b": {"source": "a"}}, None]
)
def test_a_models_config_of_another_form_does_not_end_the_report(make_run, networks):
    run = make_run(steps=0)
    path = run / "model" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"kind": "pix2pix", "networks": networks}))
    assert "earth" in written(run)


def test_a_name_that_is_not_utf8_is_an_escape(make_run):
    run = make_run(steps=0)
    (run / "config.json").write_text('{"data": {"data": "na\\udcefve"}}')
    assert "na\\udcefve" in written(run)
