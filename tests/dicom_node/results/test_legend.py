"""Numbers as a reader sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.results.legend import percent, probability_sentence
from pipeline.assessment import Margin

MARGIN = Margin(6.0, (4.8, 7.2), (0, 0, 0), 4.0, 20.0, 1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "<1 %"),
        (0.004, "<1 %"),
        (0.37, "37 %"),
        (0.996, ">99 %"),
        (1.0, ">99 %"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_a_probability_is_never_certain(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_the_sentence_names_both_limits() -> None:
    margin = replace(MARGIN, probability_below_0mm=0.02, probability_below_required=0.61)
    text = probability_sentence(margin)
    assert "below 0 mm: 2 %" in text
    assert "below what is required: 61 %" in text
