"""Published benchmarks: a YAML file names tasks, protocol and published numbers; any encoder or recipe is run on it.

In: a suite's file and data set folders (or the sources' own layouts). Out: a run folder for each task and model,
``results.json``, ``results.csv``, and a page that shows ours beside theirs.
"""
