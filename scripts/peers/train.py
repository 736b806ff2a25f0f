"""Measure how fast one program trains and print one JSON line.

    python scripts/peers/train.py PROGRAM KIND DIR [num_threads=2] [updates=60] [NAME=VALUE …]

PROGRAM: nmt, by scripts/benchmark.py; marian, joeynmt or eole: target tokens a second as each counts them, the mean of
the last four log lines, one every 10 updates. KIND: transformer or rnn, in training.yaml. Other options are of
nmt.train, such as train.precision=fp32; those of the data are for all.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

import torch
import yaml
from convert import write_data

from nmt.cli.compose import run_command
from nmt.cli.configs import Config
from nmt.runtime.errors import report_errors

LOGGED = {"nmt": r'tokens_per_second": (\S+),', "marian": r"(\S+) words/s", "joeynmt": r"per Sec: +(\d+)"}
MARIAN = "import sys, pymarian; pymarian.Trainer(sys.argv[1]).train()"


def main(program: str, kind: str, directory: str, *arguments: str) -> None:
    """Train in a temporary folder and print the speed; DIR keeps <program>-<kind>.yaml and .log."""
    folder, here, load = Path(directory), Path(__file__).parent, os.getloadavg()[0]
    options = {"num_threads": "2", "updates": "60"} | dict(argument.split("=", 1) for argument in arguments)
    file = folder / f"{program}-{kind}.yaml"
    with tempfile.TemporaryDirectory() as at:
        settings = yaml.safe_load((here / "training.yaml").read_text(encoding="utf-8") % {**options, "at": at})
        ours = settings["nmt"]["shared"] | settings["nmt"][kind] | options
        given = [f"{name}={value}" for name, value in ours.items()]
        config = settings[program]["shared"]
        config.get("model", config).update(settings[program][kind])
        if program != "nmt":
            data = [option for option in given if option.startswith(("data.", "experiment="))]
            run_command(lambda config, _: write_data(config.data, None, Path(at)), Config, "train", data)
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        python, flags = folder / "torch_peers/bin/python", [f"--{name} {value}" for name, value in config.items()]
        command = {
            "nmt": [sys.executable, here.parent / "benchmark.py", "train", *given],
            "marian": [python, "-c", MARIAN, " ".join([*flags, f"--model {at}/marian.npz"])],
            "joeynmt": [python, "-m", "joeynmt", "train", file, "--skip-test"],
            "eole": [folder / "eole_peer/bin/eole", "train", "-c", file],
        }[program]
        environment = os.environ | {"OMP_NUM_THREADS": options["num_threads"]}
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    output = result.stdout + result.stderr
    file.with_suffix(".log").write_text(output, encoding="utf-8")
    rates = [float(rate) for rate in re.findall(LOGGED.get(program, r"/ *(\d+) tok/s"), output)][-4:]
    if not rates:
        raise ValueError(f"{program} stopped before it logged a speed: {file.with_suffix('.log')} has its messages")
    shown = [f"{key}={value}" for key, value in options.items() if program == "nmt" and key.startswith("train.")]
    package = "pymarian" if program == "marian" else program
    packages = folder.glob(f"*/lib/*/site-packages/{package}-*.dist-info")
    result = {"program": " ".join([program, *shown]), "kind": kind, "load": load, "target tokens/s": round(mean(rates))}
    print(json.dumps(result | {"version": next((path.stem for path in packages), f"torch {torch.__version__}")}))


if __name__ == "__main__":
    with report_errors():
        main(*sys.argv[1:])
