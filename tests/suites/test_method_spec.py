"""Methods as users write them: parse and print are inverse to each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy_bench.errors import ParameterError
from eddy_bench.suites.method_spec import MethodSpec

WORDS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=":,="), min_size=1)
NAMES = WORDS.filter(lambda name: not name.endswith(".py"))
PLUGINS = st.builds("{}.py:{}".format, WORDS, WORDS)
VALUES = WORDS | st.builds("{} = {}".format, WORDS, WORDS)
SPECS = st.builds(
    MethodSpec, name=NAMES | PLUGINS, parameters=st.dictionaries(WORDS, VALUES, max_size=4)
)


@given(SPECS)
def test_a_printed_method_is_read_back_as_it_was(spec: MethodSpec) -> None:
    assert MethodSpec.parse(str(spec)) == spec


@given(st.text(st.sampled_from("ab .py:=,|\t"), max_size=16))
def test_printing_what_was_read_is_stable(text: str) -> None:
    try:
        printed = str(MethodSpec.parse(text))
    except ParameterError:
        return
    assert str(MethodSpec.parse(printed)) == printed


def test_none_prints_as_on_the_command_line() -> None:
    assert str(MethodSpec(name="pg", parameters={"window": None, "m": 2})) == "pg:window=none,m=2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pg:strength", "Expected key=value after 'pg', got 'strength'"),
        ("pg:strength=", "Expected key=value after 'pg', got 'strength='"),
        ("pg:=2", "Expected key=value after 'pg', got '=2'"),
        ("pg:strength=1, ", "Expected key=value after 'pg', got ' '"),
        ("pg:strength=1,strength=2", "Parameter 'strength' of 'pg' is given twice"),
        ("a/b.py:Mine:strength", "Expected key=value after 'a/b.py:Mine', got 'strength'"),
    ],
)
def test_texts_that_are_no_method_are_refused(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        MethodSpec.parse(text)
