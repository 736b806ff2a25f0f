"""TensorBoard summaries, read back with its own reader."""

import json

import numpy as np
import pytest
import torch

from nmt.training import logger
from nmt.training.logger import log_hparams
from nmt.training.progress import TrainProgress

LAYERS, HEADS, ROWS = 2, 3, 40


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def test_entropies_are_histograms_scalars_and_a_part_of_the_row_of_their_validation(tmp_path):
    rows = np.random.default_rng(1).uniform(0, 3, (LAYERS, HEADS, ROWS))
    measures = {"jump_length": [[0.5, 1.5, 2.5], [3.5, None, 5.5]]}
    with logger.RunLogger(tmp_path, ("loss", "nll"), TrainProgress(), 10, torch.device("cpu")) as written:
        written.log_attention(rows, measures, 5)
        written.log_validation(TrainProgress(update=5, best_update=5), {"loss": 1.0}, {})
        written.log_validation(
            TrainProgress(update=6, best_update=5), {"loss": 1.0}, {}
        )  # of a validation that measured nothing
    events = read(tmp_path)
    for layer in range(LAYERS):
        for head in range(HEADS):
            name = f"z_diagnostics/entropy/layer_{layer + 1}/head_{head + 1}"
            (histogram,) = events.Histograms(f"{name}/rows")
            value = histogram.histogram_value
            assert (histogram.step, value.num) == (5, ROWS)
            assert value.sum == pytest.approx(rows[layer, head].sum())
            assert [event.value for event in events.Scalars(name)] == [
                pytest.approx(rows[layer, head].mean(), abs=1e-5)
            ]
    rows_read = logger.read_metrics(tmp_path / "metrics.jsonl")
    np.testing.assert_allclose(rows_read[0]["entropy"], rows.mean(-1), atol=1e-6)
    assert rows_read[0]["attention"] == measures
    assert not {"entropy", "attention"} & set(rows_read[1])
    scalars = {tag for tag in events.Tags()["scalars"] if tag.startswith("z_diagnostics/jump_length/")}
    assert scalars == {f"z_diagnostics/jump_length/layer_{i}/head_{j}" for i in (1, 2) for j in (1, 2, 3)} - {
        "z_diagnostics/jump_length/layer_2/head_2"
    }
    assert [(e.step, e.value) for e in events.Scalars("z_diagnostics/jump_length/layer_2/head_1")] == [(5, 3.5)]


def test_values_that_are_no_numbers_end_no_validation_and_are_null_in_the_log(tmp_path):
    """As JSON has no NaN, other programs could not read such a row."""

    def no_constant(text):
        raise AssertionError(text)

    rows = np.zeros((1, 2, 4))
    rows[0, 1] = np.nan
    with logger.RunLogger(tmp_path, ("loss", "nll"), TrainProgress(), 10, torch.device("cpu")) as written:
        written.log_attention(rows, {"jump_length": [[None, None]]}, 5)
        scores = {"loss": float("nan"), "perplexity": float("inf"), "bleu": 0.0}
        written.log_validation(TrainProgress(update=5), scores, {"g": [float("nan")]})
        written.log_averaged_validation(5, scores, [4, 5], is_best=False)
    lines = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    first, second = (json.loads(line, parse_constant=no_constant) for line in lines)
    assert (first["valid_loss"], first["valid_perplexity"], first["valid_bleu"]) == (None, None, 0.0)
    assert (first["entropy"], second["averaged_loss"]) == ([[0.0, None]], None)
    (tmp_path / "old.jsonl").write_text('{"update": 5, "valid_loss": NaN}\n')  # of an earlier version
    assert logger.read_metrics(tmp_path / "old.jsonl") == [{"update": 5, "valid_loss": None}]
    assert set(read(tmp_path).Tags()["histograms"]) == {"z_diagnostics/entropy/layer_1/head_1/rows"}


def test_the_table_of_runs_has_options_and_final_scores(tmp_path):
    from tensorboard.plugins.hparams import plugin_data_pb2

    options = {
        "name": "a",
        "seed": 3,
        "model": {"d_model": 64, "heads": [1, 2], "tie_embeddings": None},
        "data": {"cache_dir": "x"},
    }
    defaults = {"seed": 3, "model": {"d_model": 32, "tie_embeddings": "all", "dropout": 0.1}}
    options["model"] |= {"dropout": 0.1, "attention": {"score": "dot"}}
    log_hparams(tmp_path, options, defaults, {"test/bleu": 31.5, "long/aer": 0.25, "test[:9]/bleu": 30.0}, 70)
    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("z_final/test/bleu")] == [(70, 31.5)]
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    hparams = {name: getattr(value, value.WhichOneof("kind")) for name, value in started.hparams.items()}
    assert hparams == {
        "seed": 3.0,
        "d_model": 64.0,
        "heads": json.dumps([1, 2]),
        "tie_embeddings": "null",
        "attention.score": "dot",
    }
    content = events.PluginTagToContent("hparams")["_hparams_/experiment"]
    infos = plugin_data_pb2.HParamsPluginData.FromString(content).experiment.metric_infos
    assert {info.name.tag for info in infos} == {"z_final/test/bleu", "z_final/long/aer", "z_final/test__9_/bleu"}
    assert {tag for tag in events.Tags()["scalars"] if tag.startswith("z_final/")} == {info.name.tag for info in infos}
    assert len(list((tmp_path / "tensorboard").iterdir())) == len(
        [path for path in (tmp_path / "tensorboard").iterdir() if path.is_file()]
    )
