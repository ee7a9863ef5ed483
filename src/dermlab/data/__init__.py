"""The data set and everything between a file on disk and an array in memory.

In: public layouts and clinics' own folders (``sources``). Out: a data set folder (``manifest.parquet``, ``card.yaml``,
``splits/``, ``images/``) that every later room reads, and batches of ``uint8`` pixels from the pixel cache.
"""
