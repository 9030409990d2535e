"""The report of a run: kept as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from salient import oneshot
from salient._oneshot import Report
from salient.modifiers.awq import AWQModifier

MODEL = Path(__file__).resolve().parents[2] / "examples/demo/model"


def test_the_report_is_kept_as_json_and_as_a_page(tmp_path: Path) -> None:
    report = oneshot(
        model=MODEL,
        dataset=MODEL.parent / "calibration.txt",
        recipe=AWQModifier(scheme="W4A16_ASYM"),
        num_calibration_samples=8,
        max_seq_length=64,
        output_dir=tmp_path / "out",
        progress=False,
    ).report
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == report
    report.save(str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page == report.to_html() and page.startswith("<!DOCTYPE html>")
    assert "<title>Quantization of model</title>" in page and page.count("<svg") >= 4
    assert len(report["layers"][0]["linears"]) == 7
    with pytest.raises(ValueError, match="'report.txt' ends in neither .html nor .json"):
        report.save("report.txt")
    with pytest.raises(FileNotFoundError):
        report.save(tmp_path / "missing/report.html")


def test_a_page_of_what_is_no_report() -> None:
    assert "No losses were measured" in Report().to_html()
    hostile = Report(model="a/</script><b>", warnings=["<b>"], layers=[{"linears": [{"name": "<b>", "loss": None}]}])
    page = hostile.to_html()
    assert "<b>" not in page and page.count("</script>") == 1 and "not finite" in page
    with pytest.raises(ValueError, match="layers"):
        Report(layers=3).to_html()
