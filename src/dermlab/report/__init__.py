"""What a person reads: one self-contained HTML page made from the files of a bake-off.

In comes a bake-off folder (``bakeoff.json``) and, for thumbnails, the data set folder; out goes ``report.html``.
Nothing is computed here that the files do not say: numbers are laid out, drawn and put into words.
"""
