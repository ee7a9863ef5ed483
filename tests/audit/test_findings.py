"""The gate lets a run go on only where every error is waived by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermlab.audit.findings import Finding, check_waivers, gate, worst_first
from dermlab.core.errors import InputError

LEAK = Finding("proxy:biopsed", "error", "'biopsed' gives the label away.", {}, "Name it.")
OVERLAP = Finding("group-overlap", "error", "Two patients are in two parts.", {}, "Split anew.")
NOTE = Finding("class-imbalance", "info", "Naevi are many.", {}, "")
WARNING = Finding("blurred-photos", "warning", "Three photos are blurred.", {}, "Look.")


def test_nothing_and_warnings_pass() -> None:
    assert gate([]) == []
    assert gate([NOTE, WARNING]) == []


def test_an_error_stops_the_run_with_what_is_wrong_and_the_line_that_waives_it() -> None:
    with pytest.raises(InputError) as error:
        gate([NOTE, LEAK, OVERLAP])
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("2 findings stop the run")
    assert "waive: [proxy:biopsed, group-overlap]" in text
    assert LEAK.message.rstrip(".") in text
    assert "group-overlap (Two patients are in two parts)" in text
    assert OVERLAP.remedy not in text  # data check tells it


def test_an_error_of_many_findings_is_short_and_names_the_command() -> None:
    long = "; a model would be tested on patients it has seen" * 5
    findings = [
        Finding(
            f"proxy:{k}", "error", f"pad-20, split 'f5': {k} of 9 patients (12 photos) leak{long}.", {}, "Mend. " * 40
        )
        for k in range(4)
    ]
    with pytest.raises(InputError) as error:
        gate([finding.in_folder(Path("a b")) for finding in findings], split="f5")
    text = str(error.value)
    assert len(text) < 400
    assert "proxy:3 (3 of 9 patients);" in text or "proxy:3 (3 of 9 patients)." in text
    assert "'dermlab data check 'a b' --split f5'" in text


def test_a_waiver_covers_its_own_finding_only() -> None:
    with pytest.raises(InputError, match="group-overlap") as error:
        gate([LEAK, OVERLAP], ["proxy:biopsed"])
    assert LEAK.message not in str(error.value)


def test_every_waiver_is_a_line_for_the_report() -> None:
    lines = gate([LEAK, OVERLAP], ["group-overlap", "proxy:biopsed", "duplicates"])
    assert lines == [
        "waived group-overlap: Two patients are in two parts.",
        "waived proxy:biopsed: 'biopsed' gives the label away.",
        "waived duplicates: nothing of it was found",
    ]


def test_a_proxy_is_waived_by_its_own_name() -> None:
    with pytest.raises(InputError):
        gate([LEAK], ["proxy:itch"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("duplicate", "'duplicates'"), ("everything", "group-overlap"), ("proxy", "proxy:biopsed"), ("proxy:", "column")],
)
def test_an_unknown_waiver_is_refused_with_the_names_there_are(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        check_waivers([name])


def test_worst_comes_first_and_the_order_within_a_severity_stays() -> None:
    assert worst_first([NOTE, OVERLAP, WARNING, LEAK]) == [OVERLAP, LEAK, WARNING, NOTE]
