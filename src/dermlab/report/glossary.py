"""The words of the report, explained to a reader who is no statistician."""

from __future__ import annotations

GLOSSARY = (
    ("top-1, top-3", "The share of photos whose true class is the model's first answer, or among its first three."),
    (
        "balanced accuracy",
        "The mean of the recalls of the classes: a rare class counts as much as a common one. "
        "Naming the commonest class every time can look good in top-1, never here.",
    ),
    ("macro-F1", "The mean over classes of F1, which needs both few misses and few false alarms."),
    ("AUROC", "How well the probabilities rank photos of a class above the others; 0.5 is chance, 1 is perfect."),
    ("ECE", "Expected calibration error: how far stated confidence is from the share correct, on average; 0 is best."),
    (
        "95% interval",
        "What the number could have been with other patients like these: patients, not photos, are redrawn, "
        "because photos of one patient resemble each other.",
    ),
    (
        "cannot tell apart",
        "The difference is within what chance alone gives on this many patients. It does not say that the models are "
        "equal.",
    ),
    (
        "floors",
        "The commonest class every time, the questionnaire without any photo, and a colour histogram: a network that "
        "does not beat them has learnt nothing that is worth its trouble.",
    ),
    (
        "train, val, test",
        "Train fits a model, val (validation) chooses between settings and models, test only reports.",
    ),
)
