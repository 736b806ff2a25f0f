import logging
import subprocess
import sys
import warnings

import numpy as np
import pytest

from nmt.evaluation.report import heatmap
from nmt.evaluation.report.heatmap import MAX_POSITIONS, colormap, plot_heatmap, save_heatmap

WEIGHTS = np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
SOURCE, TARGET = ["▁das", "▁Haus", "</s>"], ["▁house", "</s>"]


def pixels(picture):
    picture.canvas.draw()
    return np.asarray(picture.canvas.buffer_rgba())


def text_of(picture):
    return "\n".join(text.get_text() for text in picture.texts)


def test_each_cell_has_the_color_of_its_weight():
    picture = plot_heatmap(WEIGHTS, SOURCE, TARGET)
    image = pixels(picture)
    for target in range(2):
        for source in range(3):
            x, y = picture.axes[0].transData.transform((source, target))
            expected = colormap()(WEIGHTS[target, source], bytes=True)
            assert tuple(image[image.shape[0] - 1 - int(y), int(x)]) == tuple(expected), (target, source)


def test_source_is_across_and_target_down():
    picture = plot_heatmap(WEIGHTS, SOURCE, TARGET)
    axes = picture.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == SOURCE
    assert [label.get_text() for label in axes.get_yticklabels()] == TARGET
    places = [label.get_window_extent() for label in axes.get_xticklabels()]
    cells = axes.get_window_extent()
    assert all(place.y0 >= cells.y1 for place in places)
    assert all(label.get_window_extent().x1 <= cells.x0 for label in axes.get_yticklabels())
    assert axes.transData.transform((0, 0))[1] > axes.transData.transform((0, 1))[1]


def test_the_colors_darken_evenly_from_white():
    linear = colormap()(range(256))[:, :3]
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    steps = -np.diff(lightness)
    assert lightness[0] == pytest.approx(100, abs=0.1)
    assert lightness[-1] < 15
    assert steps.min() > 0.5 * steps.mean()
    assert steps.max() < 1.5 * steps.mean()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (["Donaudampfschifffahrt"] * 40, ["x", "ein sehr langes Wort", "</s>"]),
        (["▁word"] * 40, ["▁Wort"] * 30),
    ],
)
def test_everything_stays_inside_the_picture(source, target):
    picture = plot_heatmap(np.full((len(target), 40), 0.1), source, target, title="t")
    height, width = pixels(picture).shape[:2]
    axes = picture.axes[0]
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label, *picture.texts]
    for label in labels:
        box = label.get_window_extent()
        assert box.x0 >= 0, label
        assert box.y0 >= 0, label
        assert box.x1 <= width, label
        assert box.y1 <= height, label


def test_scripts_of_the_base_font_need_no_note(tmp_path):
    source = ["Größe", "Ελλάδα", "Москва", "שלום", "سلام", "▁x", r"$\frac$", "a\x07b", ""]
    assert save_heatmap(tmp_path / "picture.png", np.full((1, 9), 0.1), source, ["a"], title="$") == []
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_missing_glyphs_are_noted_and_marked_without_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(heatmap._STYLE, "font.family", ["DejaVu Sans", "no such family"])
    arguments = np.full((2, 2), 0.5), ["猫", "ab"], ["नम", "猫x"]
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        (note,) = save_heatmap(tmp_path / "picture.png", *arguments)
        picture = plot_heatmap(*arguments)
        pixels(picture)
    assert caplog.records == []
    assert "no installed font has the glyphs नम猫 (U+0928, U+092E, U+732B)" in note
    assert "fonts-noto-cjk" in note
    assert "fonts-noto-core" in note
    assert "U+732B" in text_of(picture)
    assert [label.get_text() for label in picture.axes[0].get_yticklabels()] == ["\ufffd\ufffd", "\ufffdx"]


def test_an_installed_font_draws_what_the_base_font_cannot(monkeypatch):
    arguments = np.full((1, 1), 0.0), ["猫"], ["a"]
    covered = plot_heatmap(*arguments)
    if "glyphs" in text_of(covered):
        pytest.skip("no installed font covers Chinese characters")
    monkeypatch.setitem(heatmap._STYLE, "font.family", ["DejaVu Sans"])
    marked = plot_heatmap(*arguments)
    assert text_of(covered) == ""
    assert covered.axes[0].get_xticklabels()[0].get_text() == "猫"
    assert not np.array_equal(pixels(covered)[:80, :], pixels(marked)[:80, :])


def test_long_sentences_are_truncated_with_a_note(tmp_path):
    count = MAX_POSITIONS + 7
    notes = save_heatmap(tmp_path / "picture.png", np.zeros((1, count)), [str(i) for i in range(count)], ["y" * 99])
    assert notes == [
        f"only the first {MAX_POSITIONS} of {count} source positions are drawn",
        "1 label is truncated to 28 characters",
    ]


def test_a_matrix_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(2, 3\) does not fit 3 target and 2 source labels"):
        save_heatmap(tmp_path / "picture.png", WEIGHTS, ["a", "b"], ["a", "b", "c"])
    for value in (float("nan"), -0.5):
        with pytest.raises(ValueError, match="negative or not finite"):
            save_heatmap(tmp_path / "picture.png", [[value]], ["a"], ["b"])
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_never_loaded(tmp_path):
    program = (
        "import sys; from nmt.evaluation.report.heatmap import save_heatmap; "
        "save_heatmap(sys.argv[1], [[0.5]], ['a'], ['b']); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path / "picture.png")], check=False).returncode == 0
