"""Load as it is offered: runs, trials, and the search for the highest rate."""
