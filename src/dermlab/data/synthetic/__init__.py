"""A clinic that does not exist: procedural photos of skin with lesions, patients, a questionnaire and follow-up.

:func:`make_clinic` writes it as an ordinary data set folder. ``looks`` says what each diagnosis looks like,
``patients`` who comes and what they answer, ``lesion`` and ``photo`` paint on a ``canvas`` with ``textures``, ``traps``
plants faults.
"""

from dermlab.data.synthetic.clinic import make_clinic

__all__ = ["make_clinic"]
