"""The edges of `python -m benchmarks.baselines tune`: options, one pipeline, what is printed."""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.baselines import tuning
from benchmarks.baselines.batching import Policy
from benchmarks.baselines.warm import every_setup, warm_pipeline
from benchmarks.harness import program
from benchmarks.harness.program import Options, say
from shared.models.catalogue import Catalogue

QUICK_WINDOWS = (0.0, 0.02)
QUICK_MAX_BATCHES = (4,)


def parse(arguments: Sequence[str]) -> Options:
    return program.parse("baselines tune", tuning.__doc__ or "", arguments, _add_arguments)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=_seconds, default=20.0, help="of each measurement")


def _seconds(text: str) -> float:
    if not 1.0 <= float(text) <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: 1 to 3600")
    return float(text)


async def main(options: Options) -> None:
    windows = QUICK_WINDOWS if options.quick else tuning.WINDOWS
    max_batches = QUICK_MAX_BATCHES if options.quick else tuning.MAX_BATCHES
    catalogue = Catalogue.load([options.model])
    with ThreadPoolExecutor(1, thread_name_prefix="pipeline") as thread:
        pipeline = thread.submit(
            warm_pipeline, options.model, every_setup(), Policy(max(max_batches), 0.0), catalogue
        ).result()
        say(f"one pipeline: {pipeline.setup}")
        run = tuning.Tuning(pipeline, thread, catalogue, options.own.seconds, say)
        tried = await run.all(windows, max_batches)
    if options.json:
        print(json.dumps(tuning.as_json(tried)))
    else:
        print(f"{tuning.table(tried)}\n\nbest: {tuning.best(tried).policy}")
