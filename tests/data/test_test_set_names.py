"""Names of test sets: distinct, allowed by file systems, and today's where nothing else has them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.data import DataConfig, extra_test_sets
from nmt.data.test_set_names import RESERVED_NAMES, distinct_names


@pytest.mark.parametrize(
    ("locations", "names"),
    [
        (["a/test", "b/test"], ["a-test", "b-test"]),
        (["x/test_long"], ["test_long"]),
        (["x/test_long", "x/newstest"], ["test_long", "newstest"]),
        (["test2015", "validation"], ["test2015", "validation"]),  # of a dataset of the hub
        (["a/test"], ["a-test"]),  # the first test set is called test
        (["test"], ["test-2"]),
        (["c/a/test", "d/a/test"], ["c-a-test", "d-a-test"]),
        (["/c/a/test", "a/test"], ["c-a-test", "test-2"]),
        (["A/x", "B/X"], ["A-x", "B-X"]),  # one folder where the file system ignores case
        (["a/Hühner", "b/Hu\u0308hner"], ["a-Hühner", "b-Hu\u0308hner"]),  # one folder on macOS
        (["a/my set", "b/my_set"], ["a-my set", "b-my_set"]),  # one tag in TensorBoard
        (["a/b-c", "a-b/c"], ["b-c", "c"]),
        (["runs/a/report/sentences.jsonl", "h/heatmaps"], ["report-sentences.jsonl", "h-heatmaps"]),
        (["a/.."], ["set"]),
    ],
)
def test_names(locations: list[str], names: list[str]) -> None:
    assert list(distinct_names(locations).items()) == list(zip(locations, names, strict=True))


PARTS = st.sampled_from(["test", "Test", "a", "b", "a-test", "test-2", "..", ".", "x" * 130, "t t", "t_t"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


def folded(name: str) -> str:
    return name.casefold().replace(" ", "_")


@given(st.lists(PATHS, max_size=6, unique=True))
def test_any_paths_have_distinct_names_that_are_folders_of_one_level(locations: list[str]) -> None:
    names = distinct_names(locations)
    assert list(names) == locations
    assert len({*map(folded, names.values()), *RESERVED_NAMES}) == len(names) + len(RESERVED_NAMES)
    assert all(Path(name).name == name and name not in (".", "..") and len(name) <= 255 for name in names.values())
    last = {location: Path(location).name for location in locations}
    if len({"set", "test", *map(folded, last.values())} - {"..", ""}) == len(locations) + 2:
        assert names == last  # as in earlier versions


def test_a_set_that_is_given_twice_is_refused() -> None:
    for extra in (["a/test", "a/test"], ["a/test", "./a//test"], ["c/test", "b/../c/test"]):
        with pytest.raises(ValueError, match=r"data\.extra_tests: .* is given 2 times: name each set once"):
            DataConfig(format="text", train="t", extra_tests=extra).validate()
    DataConfig(format="text", train="t", test="a/test", extra_tests=["a/test"]).validate()


def test_the_set_of_the_built_in_pair_has_its_name(tmp_path: Path) -> None:
    config = DataConfig(cache_dir=str(tmp_path))
    config.synthetic.train = config.synthetic.valid = config.synthetic.test = config.synthetic.long = 3
    assert list(extra_test_sets(config).values()) == ["test_long"]
