"""The report of a run: figures, escaping, and that it says what is simulated."""

from __future__ import annotations

import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console
from tests.support.example_run import HOSTILE, events, finished_run

from accord.cli.render.report_table import report_table
from accord.controller import v1 as controller_v1
from accord.report.figures import figures
from accord.report.html import render_html
from accord.report.json_form import report_json
from accord.report.model import Report
from accord.report.report import build_report

pytestmark = pytest.mark.process

ITERATION_KEYS = {"iteration", "heldout_score", "kl_nats", "rm_accuracy", "promoted", "seconds", "stage_seconds"}


class Page(HTMLParser):
    """The ids, tags and visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def table_text(report: Report, width: int = 80) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(report_table(report))
    return text.getvalue()


def test_json_has_the_promised_shape_with_the_base_model_first() -> None:
    document = report_json(build_report(finished_run(), events()))
    rows = document["iterations"]
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    assert all(row.keys() >= ITERATION_KEYS for row in rows)
    assert rows[0]["rm_accuracy"] is None
    assert rows[2]["heldout_score"] == 0.575
    assert rows[2]["promoted"] is True
    assert rows[1]["stage_seconds"] == {"collect": 95.0, "reward_model": 60.0, "policy": 290.0, "evaluate": 35.5}
    assert rows[0]["stage_usage"]["prepare"] == {
        "cpu_seconds": 12.5, "gpu_seconds": None, "cpu_seconds_by_service": {"trainer": 9.5, "rollout": 3.0},
        "unknown_services": [],
    }  # fmt: skip
    assert (rows[0]["cpu_seconds"], rows[0]["gpu_seconds"]) == (12.5, None)
    assert (rows[1]["cpu_seconds"], rows[1]["gpu_seconds"]) == (482.5, 240.0)
    assert document["simulated_feedback"] is True
    json.dumps(document, allow_nan=False)


def test_json_never_holds_nan_and_counts_a_step_done_again_once() -> None:
    happened = events()
    policy = [event for event in happened if event.stage == controller_v1.STAGE_POLICY]
    policy[0].metrics["reward"] = math.nan
    steps = report_json(build_report(finished_run(), happened))["steps"]
    found = [step for step in steps if step["stage"] == "policy" and step["iteration"] == 1]
    assert [step["step"] for step in found] == list(range(1, 21))
    assert found[0]["metrics"]["reward"] is None
    assert found[4]["metrics"]["reward"] > -1  # the step was done twice: the later event counts


def test_html_is_one_file_that_loads_nothing_and_has_every_plot() -> None:
    html = render_html(build_report(finished_run(), events()))
    page = Page(html)
    assert "script" not in page.tags
    assert not [link for link in page.links if not link.startswith("#")]
    assert "@import" not in html
    assert html.count("<svg") == 7
    assert len(page.ids) == len(set(page.ids))
    for title in ("Held-out score", "Reward during", "KL to the reference", "Response length", "Reward-model accuracy",
                  "Time per stage"):  # fmt: skip
        assert title in page.text
    assert "CPU 8 min 02 s, GPU 4 min 00 s" in page.text
    assert "Not included: reward" in page.text


def test_html_escapes_prompts_answers_names_and_messages() -> None:
    run = finished_run()
    run.status.message = run.status.iterations[1].gate_reason = HOSTILE
    run.spec.model = run.status.resolved_spec.model = HOSTILE
    html = render_html(build_report(run, events()))
    page = Page(html)
    assert "<script>" not in html
    assert "<b>bold</b>" not in html
    assert page.text.count('<script>alert("owned")</script>') >= 5
    assert "{{ 7 * 7 }}" in page.text


def test_html_shows_answers_of_the_base_model_beside_those_of_the_active_policy() -> None:
    run = finished_run()
    run.status.iterations[2].promoted = False  # the gate failed: the policy of iteration 1 stays active
    html = render_html(build_report(run, events()))
    first = html[html.index("Answers before and after") :].split("</article>")[0]
    before, after, others = (
        first.index("write her a note."),
        first.index("What a kind gesture"),
        first.index("<details>"),
    )
    assert before < after < others < first.index("What a lovely, kind gesture")
    assert "after: iteration 1" in first


def test_simulated_feedback_is_said_in_every_form_and_human_feedback_is_not_called_simulated() -> None:
    simulated = build_report(finished_run())
    assert "SIMULATED ANNOTATORS" in render_html(simulated)
    assert "SIMULATED ANNOTATORS" in table_text(simulated)
    run = finished_run()
    run.status.simulated_feedback = False
    for spec in (run.spec, run.status.resolved_spec):
        spec.feedback.people.SetInParent()
    human = build_report(run)
    assert "simulated" not in render_html(human).lower()
    assert "simulated" not in table_text(human).lower()
    assert report_json(human)["simulated_feedback"] is False


def test_table_fits_80_columns_and_shows_every_figure() -> None:
    text = table_text(build_report(finished_run()))
    assert max(len(line) for line in text.splitlines()) <= 80
    for figure in ("0.118", "0.402", "0.575", "+0.457", "5.40", "84.0 %", "yes", "4:50", "8:02", "reward model"):
        assert figure in text, figure


def test_a_run_that_has_only_begun_has_a_report_too() -> None:
    run = controller_v1.Run(run_id="new", spec={"model": "m", "prompts": {}, "feedback": {"people": {}}})
    run.status.state = controller_v1.RUN_STATE_RUNNING
    report = build_report(run)
    assert "No iteration has finished yet" in render_html(report)
    assert "No iteration has finished yet" in table_text(report)
    assert report_json(report)["iterations"] == []


def test_html_is_the_same_for_the_same_figures() -> None:
    report = build_report(finished_run(), events())
    assert render_html(report) == render_html(report)
    assert not re.search(r"20\d\d-\d\d-\d\dT", render_html(report))


def test_two_metrics_that_are_one_line_are_drawn_once() -> None:
    def plot(happened: list[controller_v1.RunEvent]) -> str:
        return next(svg for title, _, svg in figures(build_report(finished_run(), happened)) if "policy" in title)

    happened = events()
    assert "legend" in plot(happened)
    for event in happened:
        if "score" in event.metrics:
            event.metrics["reward"] = event.metrics["score"] * (1 + 1e-7)
    assert "legend" not in plot(happened)


def test_staleness_is_drawn_where_samples_were_stale() -> None:
    def titles(happened: list[controller_v1.RunEvent]) -> list[str]:
        return [title for title, _, _ in figures(build_report(finished_run(), happened))]

    happened = events()
    for event in happened:
        if event.stage == controller_v1.STAGE_POLICY and event.kind == "step":
            event.metrics.update({"staleness": 0.0, "staleness_max": 0.0, "mismatch_kl": 1e-4})
    assert "Staleness" not in titles(happened)
    assert "Engine against trainer" in titles(happened)
    for event in happened:
        if "staleness" in event.metrics:
            event.metrics.update({"staleness": 0.5, "staleness_max": 1.0})
    assert "Staleness" in titles(happened)


def test_the_engines_that_generated_the_samples_are_named_with_every_swap() -> None:
    run, happened = finished_run(), events()
    for number, (engine, state) in enumerate((("vllm", "DONE"), ("sglang", "REFUSED")), start=1):
        swap = run.status.swaps.add(number=number, state=f"SWAP_STATE_{state}")
        swap.services.engine, swap.replaces.engine, swap.replaces.replicas = engine, "transformers", 2
        kind = "swap_shifted" if state == "DONE" else "swap_refused"
        where = {"iteration": number, "stage": controller_v1.STAGE_POLICY, "step": 6 + number}
        happened.append(controller_v1.RunEvent(kind=kind, metrics={"swap": number}, **where))
    run.status.swaps[1].reason = "NOT_CONFORMING"
    run.status.iterations[1].samples[0].engine = "vllm"
    report = build_report(run, happened)
    said = "2 x transformers; from iteration 1, policy, step 7: vllm; sglang refused (NOT_CONFORMING) in iteration 2"
    assert said in Page(render_html(report)).text
    assert "iteration 1 · vllm" in Page(render_html(report)).text
    assert "from iteration 1, policy, step 7: vllm" in " ".join(table_text(report, 200).split())
    document = report_json(report)
    assert [(row["engine"], row["taken"], row["step"]) for row in document["engines"]] == [
        ("2 x transformers", True, 0),
        ("vllm", True, 7),
        ("sglang", False, 8),
    ]
    assert document["iterations"][1]["samples"][0]["engine"] == "vllm"
    # Without its events the swaps of a run are known, but not where they were.
    assert "after a swap: vllm" in table_text(build_report(run), 200)
    assert "Samples generated by" not in table_text(build_report(finished_run()))
