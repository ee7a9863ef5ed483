"""Fine-tuning: a backbone and a head trained together on a clinic's photos, in two phases, from one config.

In come a data set with a split and a recipe; out goes a run folder like a probe's, with the trained network in it.
"""
