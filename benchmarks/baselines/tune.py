"""The edges of `python -m benchmarks.baselines tune`: options, one pipeline, what is printed."""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.baselines import tuning
from benchmarks.baselines.batching import Policy
from benchmarks.baselines.warm import every_setup, warm_pipeline
from shared.models.catalogue import Catalogue
from shared.shipped import DEFAULT_MODEL

QUICK_WINDOWS = (0.0, 0.02)
QUICK_MAX_BATCHES = (4,)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baselines tune",
        description=tuning.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a diffusers directory or a hub id")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a smoke run; no figures to quote")
    found = parser.parse_args(arguments)
    if not 1.0 <= found.seconds <= 3600.0:
        parser.error(f"--seconds: {found.seconds:g} is not allowed; allowed: 1 to 3600")
    return found


async def main(options: argparse.Namespace) -> None:
    windows = QUICK_WINDOWS if options.quick else tuning.WINDOWS
    max_batches = QUICK_MAX_BATCHES if options.quick else tuning.MAX_BATCHES
    catalogue = Catalogue.load([options.model])
    with ThreadPoolExecutor(1, thread_name_prefix="pipeline") as thread:
        pipeline = thread.submit(
            warm_pipeline, options.model, every_setup(), Policy(max(max_batches), 0.0), catalogue
        ).result()
        _say(f"one pipeline: {pipeline.setup}")
        run = tuning.Tuning(pipeline, thread, catalogue, options.seconds, _say)
        tried = await run.all(windows, max_batches)
    if options.json:
        print(json.dumps(tuning.as_json(tried)))
    else:
        print(f"{tuning.table(tried)}\n\nbest: {tuning.best(tried).policy}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
