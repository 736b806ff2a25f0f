"""The progress of a stage that may take long: a bar on a terminal; elsewhere, and in log files, a line now and then."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nmt.runtime.terminal import shows_bars

log = logging.getLogger(__name__)

LOG_SECONDS = 15.0


@contextmanager
def show_stage(stage: str, total: int = 0, *, announce: bool = True) -> Iterator[Callable[[int], None]]:
    """Yield a function that is called with the number of items done so far, of `total` (0: unknown).

    The beginning is logged, too, unless `announce` is false.
    """
    from tqdm import tqdm

    begin = logged = time.monotonic()
    form = None if total else "{desc} [{elapsed}]"
    with tqdm(
        desc=stage, total=total or None, bar_format=form, leave=False, dynamic_ncols=True, disable=not shows_bars()
    ) as bar:
        level = logging.INFO if bar.disable else logging.DEBUG

        def show(num_done: int) -> None:
            nonlocal logged
            bar.update(num_done - bar.n)
            now = time.monotonic()
            if num_done < total and now - logged >= LOG_SECONDS:
                logged, left = now, tqdm.format_interval((now - begin) / max(num_done, 1) * (total - num_done))
                log.log(level, "%s: %d of %d, about %s left", stage, num_done, total, left)

        if announce:
            log.log(level, "%s", stage)
        yield show
        show(total)
