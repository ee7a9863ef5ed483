"""The ground floor: errors, typed configs, run folders, fingerprints, device and precision, progress.

Nothing here knows of images or models. Every room above imports from here; nothing here imports from above.
"""
