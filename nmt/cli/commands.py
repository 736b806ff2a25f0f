"""The commands, without what they need to run."""

SUMMARIES = {
    "train": "Train a translation model and evaluate it; everything is written to runs/<name>/.",
    "evaluate": "Evaluate a trained model on a test set. Options that are not given come from the checkpoint.",
    "align": "Align the words of parallel texts with a trained model, and compare with gold alignments.",
    "translate": "Translate a file or standard input, one sentence a line.",
    "score": "Score translations, whoever made them, with a trained model, and rerank n-best lists.",
    "export": "Export a trained model for other programs. --formats shows what each format supports.",
    "trim": "Cut the vocabulary of a trained model to what a text needs, into a smaller checkpoint.",
    "clean": "Clean a parallel corpus by a table of filters, and show what each of them rejects.",
    "serve": "Serve trained models on a web page and a JSON API; see docs/serve.md.",
    "tune": "Tune options with Optuna: sample values, train, and stop bad trials early.",
    "compare": "Compare runs: scores over seeds, the significance of their differences, and costs.",
    "completion": 'Print a script that completes options in bash or zsh: eval "$(nmt completion bash)".',
}
