"""Who comes to the clinic: patients, their lesions, visits, answers and follow-up; everything but the pixels.

Patient ``k`` depends on the seed and on ``k`` alone, so the first photos of a small clinic are those of a large one.
Site, device, skin type, modality, number of visits and what is left blank are drawn without looking at the diagnosis.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dermlab.core.randomness import generator
from dermlab.data.synthetic.canvas import ITA_BANDS
from dermlab.data.synthetic.looks import Look, draw_look

SITES = ("harbour", "hillside", "market", "riverside")
SITE_SHARES = (0.38, 0.28, 0.20, 0.14)
CAMERAS = ("phone-a", "phone-b", "phone-c")
DERMATOSCOPES = ("scope-x", "scope-y")
SKIN_TYPE_SHARES = (0.13, 0.25, 0.25, 0.17, 0.12, 0.08)
SEXES = ("female", "male")
REGIONS = ("face", "scalp", "ear", "neck", "chest", "abdomen", "back", "arm", "hand", "leg", "foot")
SUN = ("low", "medium", "high")
FIRST_VISIT = datetime.date(2019, 1, 7)
PHOTOS = ((False,), (True,), (False, True))  # what is taken at a visit: is it a dermoscopy?
PHOTO_SHARES = (0.48, 0.27, 0.25)

# Every block of twenty patients holds exactly this many whose main complaint is of each diagnosis, in random order:
# a small clinic has the mix of a large one, and the order tells nothing.
BLOCK = ("NEV",) * 6 + ("BCC",) * 4 + ("SEK",) * 4 + ("ACK",) * 2 + ("MEL",) * 2 + ("SCC",) * 2

# What else a patient with this main complaint shows: sun damage comes together, naevi come in numbers.
ALSO: dict[str, dict[str, float]] = {
    "NEV": {"NEV": 0.62, "SEK": 0.14, "MEL": 0.08, "ACK": 0.06, "BCC": 0.06, "SCC": 0.04},
    "MEL": {"NEV": 0.45, "SEK": 0.16, "MEL": 0.12, "ACK": 0.11, "BCC": 0.11, "SCC": 0.05},
    "SEK": {"SEK": 0.46, "NEV": 0.20, "ACK": 0.14, "BCC": 0.12, "SCC": 0.05, "MEL": 0.03},
    "BCC": {"BCC": 0.34, "ACK": 0.26, "SEK": 0.16, "SCC": 0.11, "NEV": 0.10, "MEL": 0.03},
    "ACK": {"ACK": 0.46, "BCC": 0.18, "SCC": 0.15, "SEK": 0.12, "NEV": 0.06, "MEL": 0.03},
    "SCC": {"ACK": 0.38, "SCC": 0.18, "BCC": 0.22, "SEK": 0.12, "NEV": 0.07, "MEL": 0.03},
}

AGE: dict[str, tuple[float, float]] = {  # mean and spread, years
    "NEV": (43, 16), "MEL": (56, 16), "SEK": (62, 13), "BCC": (65, 13), "ACK": (66, 12), "SCC": (69, 12),
}  # fmt: skip
MALE = {"NEV": 0.44, "MEL": 0.52, "SEK": 0.50, "BCC": 0.54, "ACK": 0.56, "SCC": 0.62}
HIGH_SUN = {"NEV": 0.28, "MEL": 0.38, "SEK": 0.32, "BCC": 0.48, "ACK": 0.56, "SCC": 0.54}

# Relative frequency of the regions, in the order of REGIONS; no diagnosis is ruled out anywhere.
REGION_WEIGHTS: dict[str, tuple[float, ...]] = {
    "NEV": (10, 3, 1, 5, 13, 10, 24, 13, 4, 13, 4),
    "MEL": (9, 4, 2, 4, 11, 7, 25, 13, 4, 16, 5),
    "SEK": (18, 5, 2, 7, 14, 9, 24, 9, 4, 7, 1),
    "BCC": (38, 5, 5, 7, 10, 4, 14, 7, 4, 5, 1),
    "ACK": (34, 11, 6, 4, 6, 3, 6, 12, 14, 3, 1),
    "SCC": (30, 8, 8, 5, 5, 3, 7, 12, 14, 7, 1),
}

# Probability of a yes.
YES: dict[str, dict[str, float]] = {
    "itch": {"NEV": 0.15, "SEK": 0.38, "ACK": 0.50, "BCC": 0.44, "SCC": 0.52, "MEL": 0.26},
    "hurt": {"NEV": 0.05, "SEK": 0.07, "ACK": 0.18, "BCC": 0.20, "SCC": 0.40, "MEL": 0.10},
    "grew": {"NEV": 0.18, "SEK": 0.34, "ACK": 0.28, "BCC": 0.55, "SCC": 0.66, "MEL": 0.62},
    "changed": {"NEV": 0.12, "SEK": 0.14, "ACK": 0.12, "BCC": 0.22, "SCC": 0.32, "MEL": 0.52},
    "bleed": {"NEV": 0.04, "SEK": 0.12, "ACK": 0.14, "BCC": 0.34, "SCC": 0.42, "MEL": 0.22},
    "family_history": {"NEV": 0.14, "SEK": 0.14, "ACK": 0.20, "BCC": 0.24, "SCC": 0.22, "MEL": 0.28},
}
WRONG_ELEVATION = 0.10

# Share of answers left blank by chance, and how much more often one of the sites leaves the question out.
BLANK: dict[str, float] = {
    "age": 0.01, "sex": 0.01, "region": 0.02, "sun_exposure": 0.08, "family_history": 0.12, "itch": 0.05,
    "hurt": 0.05, "grew": 0.09, "changed": 0.09, "bleed": 0.04, "elevation": 0.04, "diameter_mm": 0.15,
}  # fmt: skip
SHORT_FORM_SITE = "riverside"
SHORT_FORM_BLANK = {"family_history": 0.45, "sun_exposure": 0.4, "diameter_mm": 0.3}

# Yearly rate of recurrence or progression, and its Weibull shape.
HAZARD = {"NEV": 0.015, "SEK": 0.02, "ACK": 0.09, "BCC": 0.10, "SCC": 0.24, "MEL": 0.30}
WEIBULL_SHAPE = 1.2


@dataclass(frozen=True)
class Patient:
    """One patient. ``typology_angle`` is the skin's ITA in degrees; ``sun_damage`` 0..1; ``hair`` 0..1."""

    number: int
    patient_id: str
    site: str
    camera: str
    dermatoscope: str
    sex: str
    skin_type: int
    typology_angle: float
    birth: datetime.date
    sun_exposure: str
    sun_damage: float
    hair: float
    family_history: bool

    def age(self, day: datetime.date) -> float:
        """Age in years at a day."""
        return (day - self.birth).days / 365.25


@dataclass(frozen=True)
class Lesion:
    """One lesion. ``end`` is the day on which it recurred or progressed (``event``) or follow-up ended."""

    number: str
    lesion_id: str
    patient: Patient
    diagnosis: str
    subtype: str
    look: Look
    region: str
    field_mm: float
    scope_mm: float
    yes: dict[str, bool]
    event: bool
    end: datetime.date

    def diameter_mm(self, years: float) -> float:
        """Mean diameter so many years after the first visit."""
        return self.look.diameter_mm * max(0.6, 1 + self.look.growth * years)


@dataclass(frozen=True)
class Shot:
    """One photo: which lesion, when, how. ``number`` counts all photos of the clinic; ``answers`` may hold None."""

    number: int
    image_id: str
    lesion: Lesion
    day: datetime.date
    years: float
    dermoscopy: bool
    answers: dict[str, object]

    @property
    def device(self) -> str:
        """The camera or dermatoscope used."""
        patient = self.lesion.patient
        return patient.dermatoscope if self.dermoscopy else patient.camera

    @property
    def diameter_mm(self) -> float:
        """True mean diameter on the day."""
        return self.lesion.diameter_mm(self.years)


def shots(seed: int) -> Iterator[Shot]:
    """Yield the photos of the endless clinic of this seed, patient after patient."""
    number = 0
    patient_number = 0
    while True:
        for lesion, visits in _lesions(seed, patient_number):
            for visit, (day, modalities) in enumerate(visits):
                answers = _answers(lesion, visits[0][0], day, generator(seed, "answers", lesion.number, visit))
                for dermoscopy in modalities:
                    yield Shot(
                        number=number,
                        image_id=f"IMG_{number:06d}",
                        lesion=lesion,
                        day=day,
                        years=(day - visits[0][0]).days / 365.25,
                        dermoscopy=dermoscopy,
                        answers=answers,
                    )
                    number += 1
        patient_number += 1


Visits = list[tuple[datetime.date, tuple[bool, ...]]]  # the day, and for each photo whether it is a dermoscopy


@lru_cache(maxsize=4)
def _main_complaints(seed: int, block: int) -> tuple[str, ...]:
    return tuple(generator(seed, "block", block).permutation(BLOCK).tolist())


def _lesions(seed: int, number: int) -> Iterator[tuple[Lesion, Visits]]:
    """Yield the lesions of one patient with their visits."""
    block, place = divmod(number, len(BLOCK))
    main = _main_complaints(seed, block)[place]
    rng = generator(seed, "patient", number)
    first = FIRST_VISIT + datetime.timedelta(days=int(rng.integers(0, 5 * 365)))
    patient = _patient(number, main, first, rng)
    for index in range(1 + _pick(rng, (0.66, 0.25, 0.09))):
        rng = generator(seed, "lesion", number, index)
        diagnosis = main if index == 0 else list(ALSO[main])[_pick(rng, tuple(ALSO[main].values()))]
        visits: Visits = []
        day = first
        for _ in range(1 + _pick(rng, (0.68, 0.23, 0.09))):
            visits.append((day, PHOTOS[_pick(rng, PHOTO_SHARES)]))
            day = day + datetime.timedelta(days=int(rng.integers(80, 420)))
        yield _lesion(patient, index, diagnosis, visits, rng), visits


def _patient(number: int, main: str, first: datetime.date, rng: np.random.Generator) -> Patient:
    mean, spread = AGE[main]
    age = float(np.clip(rng.normal(mean, spread), 18, 95))
    skin_type = _pick(rng, SKIN_TYPE_SHARES) + 1
    sun = _sun(main, rng)
    site = SITES[_pick(rng, SITE_SHARES)]
    # A site has its own camera, and now and then uses another.
    camera = CAMERAS[SITES.index(site) % len(CAMERAS)] if rng.random() < 0.7 else str(rng.choice(CAMERAS))
    scope = DERMATOSCOPES[SITES.index(site) % 2] if rng.random() < 0.7 else str(rng.choice(DERMATOSCOPES))
    return Patient(
        number=number,
        patient_id=f"P{number:05d}",
        site=site,
        camera=camera,
        dermatoscope=scope,
        sex="male" if rng.random() < MALE[main] else "female",
        skin_type=skin_type,
        typology_angle=float(rng.uniform(*ITA_BANDS[skin_type])),
        birth=first - datetime.timedelta(days=int(age * 365.25)),
        sun_exposure=sun,
        sun_damage=float(np.clip((age - 30) / 60 + 0.25 * (SUN.index(sun) - 1) + rng.normal(0, 0.12), 0, 1)),
        hair=float(rng.beta(0.8, 2.0)),
        family_history=bool(rng.random() < YES["family_history"][main]),
    )


def _pick(rng: np.random.Generator, weights: tuple[float, ...]) -> int:
    """Return an index drawn with these relative weights (``rng.choice`` takes ten times as long)."""
    mark = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        mark -= weight
        if mark < 0:
            return index
    return len(weights) - 1


def _sun(main: str, rng: np.random.Generator) -> str:
    high = HIGH_SUN[main]
    return SUN[_pick(rng, (0.6 * (1 - high), 0.4 * (1 - high), high))]


def _lesion(patient: Patient, index: int, diagnosis: str, visits: Visits, rng: np.random.Generator) -> Lesion:
    subtype, look = draw_look(diagnosis, rng)
    yes = {question: bool(rng.random() < rates[diagnosis]) for question, rates in YES.items()}
    yes["elevation"] = look.elevated != (rng.random() < WRONG_ELEVATION)
    yes["bleed"] = yes["bleed"] or bool(rng.random() < 0.3 * look.ulcer)
    yes["family_history"] = patient.family_history
    last = visits[-1][0]
    age = patient.age(last)
    rate = HAZARD[diagnosis] * np.exp(0.04 * (look.diameter_mm - 8) + 0.015 * (age - 60) + 0.8 * look.ulcer)
    event_years = (rng.exponential() ** (1 / WEIBULL_SHAPE)) / rate
    followed_years = rng.uniform(0.4, 5.0)
    widest = look.diameter_mm * (1 + max(look.growth, 0.0) * (last - visits[0][0]).days / 365.25)
    return Lesion(
        number=f"{patient.number}.{index}",
        lesion_id=f"{patient.patient_id}-L{index + 1}",
        patient=patient,
        diagnosis=diagnosis,
        subtype=subtype,
        look=look,
        region=REGIONS[_pick(rng, REGION_WEIGHTS[diagnosis])],
        # The photographer steps back for a large lesion, and uses the same distance at the next visit.
        field_mm=float(max(rng.uniform(15, 34), 1.45 * widest)),
        scope_mm=float(max(rng.uniform(10, 16), 1.2 * widest)),
        yes=yes,
        event=bool(event_years < followed_years),
        end=last + datetime.timedelta(days=max(1, int(365.25 * min(event_years, followed_years)))),
    )


def _answers(lesion: Lesion, first: datetime.date, day: datetime.date, rng: np.random.Generator) -> dict[str, object]:
    """Return the questionnaire of one visit, with its blanks."""
    patient = lesion.patient
    diameter = lesion.diameter_mm((day - first).days / 365.25) * float(np.exp(rng.normal(0, 0.12)))
    answers: dict[str, object] = {
        "age": float(int(patient.age(day))),
        "sex": patient.sex,
        "region": lesion.region,
        "sun_exposure": patient.sun_exposure,
        **lesion.yes,
        "diameter_mm": round(diameter * 2) / 2,
    }
    for question, share in BLANK.items():
        if patient.site == SHORT_FORM_SITE:
            share = max(share, SHORT_FORM_BLANK.get(question, 0.0))
        if rng.random() < share:
            answers[question] = None
    return answers
