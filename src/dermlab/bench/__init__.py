"""Candidates against each other on the same photos: the bake-off, its choice of a winner and its decision.

In come a data set folder and a config that names candidates; out go a run folder for each, ``leaderboard.csv``,
``comparison.json`` and ``bakeoff.json``, from which the report is drawn.
"""
