"""What the scripts of this folder print: one JSON line of failures and findings."""

import json
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def run_checks(checks: Mapping[str, Callable[[], Any]], **findings: Callable[[], Any]) -> None:
    """Run every check and print {"checks": how many, "failed": {name: error}, "seconds": …}, whatever fails.

    The `findings` are called at the end, and printed by their names.
    """
    failed: dict[str, str] = {}
    begin = time.monotonic()
    for name, function in checks.items():
        try:
            function()
        except Exception as error:
            places = [
                f for f in traceback.extract_tb(error.__traceback__) if "/nmt/" in f.filename or "/gpu/" in f.filename
            ]
            at = " < ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in reversed(places[-4:]))
            failed[name] = f"{type(error).__name__}: {str(error)[:600]} at {at}"
    seconds = round(time.monotonic() - begin, 1)
    found = {name: function() for name, function in findings.items()}
    print(json.dumps({"checks": len(checks), "failed": failed, "seconds": seconds, **found}), flush=True)
