"""How a batch takes one step: predictors, of which the first that applies answers, and the update
of its rows."""
