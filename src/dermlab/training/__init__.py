"""How any network is trained: optimisers, schedules, averaged weights, checkpoints, and the loop that survives a kill.

In come a network, a function that turns a step's number into a loss, and rates; out go a trained network and a file
from which the same command goes on. Fine-tuning and pretraining both stand on it; neither is known here.
"""
