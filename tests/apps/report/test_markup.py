"""Escaping, the data block, and numbers that name their place."""

from __future__ import annotations

import json
import re

import pytest

from ppo_jax.apps.report.html.markup import (
    Html,
    Numbers,
    breakable,
    inline,
    join,
    json_block,
    rounded,
    subscripted,
    tag,
)


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    shown = tag("p", "<b>&", tag("i", "x"), title='a"<')
    assert shown == '<p title="a&quot;&lt;">&lt;b&gt;&amp;<i>x</i></p>'
    assert join(["<", [Html("<br>"), None]]) == "&lt;<br>"


def test_attributes_are_spelled_as_html_spells_them() -> None:
    assert tag("details", class_="a", data_at="/b", open=True, id=None, hidden=False) == (
        '<details class="a" data-at="/b" open></details>'
    )
    assert tag("img", src="data:,") == '<img src="data:,">'


def test_no_text_in_the_data_block_can_end_it() -> None:
    content = {"a": "</script><!--<script>&\u2028", "b": [1.5, None]}
    block = json_block("here", content)
    inside = re.fullmatch(r'<script type="application/json" id="here">(.*)</script>', block)
    assert inside is not None
    assert not set("<>&\u2028") & set(inside[1])
    assert json.loads(inside[1]) == content


@pytest.mark.parametrize(
    "value, form, shown",
    [
        (-157.23456, "", "−157.2"),
        (0.0123456, "", "0.01235"),
        (9.99996, "", "10.000"),
        (500.0, "", "500"),
        (100_096, "", "100,096"),
        (12345.678, "", "12,346"),
        (0.0, "", "0"),
        (1.5e-9, "", "1.500e−09"),
        (0.305, ".0%", "30%"),
        (0.5, "+.2f", "+0.50"),
        ("inf", "", "inf"),
    ],
)
def test_a_number_is_shown_to_four_digits_or_as_asked(value, form: str, shown: str) -> None:
    assert rounded(value, form) == shown


def test_a_number_says_where_it_stands_and_has_all_its_digits() -> None:
    numbers = Numbers({"a/b~": [{"x": 1.23456789}]})
    assert numbers.show("a/b~", 0, "x") == (
        '<data value="1.23456789" data-at="/a~1b~0/0/x" title="1.23456789">1.235</data>'
    )
    assert numbers.show("a/b~", 1, "x") == '<span class="none">–</span>'
    assert numbers.interval("nothing") is None


def test_names_break_at_their_seams_and_backticks_are_code() -> None:
    assert breakable("MountainCar-v0<") == "Mountain<wbr>Car-<wbr>v0&lt;"
    assert join(inline("a `b<` c")) == "a <code>b&lt;</code> c"
    assert subscripted("π_old‖π") == "π<sub>old</sub>‖π"
