"""The loop of every worker: pull, claim, run, write, advance, publish, acknowledge."""
