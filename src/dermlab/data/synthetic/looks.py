"""What each diagnosis looks like: one table of ranges for each subtype, read like a textbook's list of findings.

A lesion draws every finding of its subtype uniformly from the range given here; a finding that is not named is absent.
Ranges of different diagnoses overlap on purpose (an early melanoma is an atypical naevus, a pigmented keratosis is
dark and irregular, a thin carcinoma in situ is a keratosis): that overlap is the difficulty of the data set.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

DIAGNOSES: dict[str, str] = {
    "ACK": "actinic keratosis",
    "BCC": "basal cell carcinoma",
    "MEL": "melanoma",
    "NEV": "melanocytic naevus",
    "SCC": "squamous cell carcinoma",
    "SEK": "seborrhoeic keratosis",
}
MALIGNANT = ("BCC", "MEL", "SCC")
BENIGN = ("ACK", "NEV", "SEK")
SIGNS = ("crust", "pearly", "pigment", "scale", "ulcer")
SEVERITY = ("absent", "mild", "moderate", "severe")


@dataclass(frozen=True)
class Look:
    """The findings of one lesion. Lengths are fractions of its radius and amounts are 0 (absent) to about 1 (marked).

    Attributes:
        diameter_mm: mean diameter at the first visit.
        growth: relative growth of the diameter, per year.
        aspect: short axis / long axis.
        irregular: displacement of the border by smooth noise.
        ragged: displacement of the border by fine noise.
        soft: width of the border zone.
        melanin: epidermal pigment (0 none, 1 brown, 3 black).
        variegated: spread of the pigment within the lesion.
        asymmetric: slope of the pigment across the lesion.
        centre: pigment of the centre against the rim (negative: a paler centre).
        black: pigment of an off-centre dark area.
        redness: blood within the lesion.
        halo: redness around it.
        regression: white scar-like area.
        veil: blue-white veil.
        nests: blue-grey ovoid nests.
        pearly: translucent, shiny surface.
        dome: height of a smooth dome, plateau: of a sharp-edged plaque, rim: of a raised edge (fractions of radius).
        warty: cobblestone surface with fissures.
        scale: white flakes; crust: yellow keratin in the centre; ulcer: dark red, moist centre.
        network: pigment network (dermoscopy); network_atypical: its irregularity; globules; streaks; milia; comedones.
        branching: arborising vessels; coils: dotted and glomerular vessels; follicles: white openings in red.
    """

    diameter_mm: float
    growth: float = 0.0
    aspect: float = 0.9
    irregular: float = 0.05
    ragged: float = 0.02
    soft: float = 0.1
    melanin: float = 0.0
    variegated: float = 0.1
    asymmetric: float = 0.0
    centre: float = 0.0
    black: float = 0.0
    redness: float = 0.0
    halo: float = 0.0
    regression: float = 0.0
    veil: float = 0.0
    nests: float = 0.0
    pearly: float = 0.0
    dome: float = 0.0
    plateau: float = 0.0
    rim: float = 0.0
    warty: float = 0.0
    scale: float = 0.0
    crust: float = 0.0
    ulcer: float = 0.0
    network: float = 0.0
    network_atypical: float = 0.0
    globules: float = 0.0
    streaks: float = 0.0
    milia: float = 0.0
    comedones: float = 0.0
    branching: float = 0.0
    coils: float = 0.0
    follicles: float = 0.0

    @property
    def signs(self) -> tuple[str, ...]:
        """Which of :data:`SIGNS` anybody would note down."""
        marked = (self.crust > 0.35, self.pearly > 0.4, self.melanin > 0.7, self.scale > 0.35, self.ulcer > 0.3)
        return tuple(name for name, there in zip(SIGNS, marked, strict=True) if there)

    @property
    def severity(self) -> str:
        """How red it is, in words of :data:`SEVERITY`."""
        return SEVERITY[sum(max(self.redness, self.halo) > border for border in (0.15, 0.45, 0.65))]

    @property
    def elevated(self) -> bool:
        """Whether a finger would feel it."""
        return max(self.dome, self.plateau, self.rim, 0.25 * self.crust) > 0.11


Ranges = dict[str, tuple[float, float]]

# Diagnosis → subtype → (share of the diagnosis, findings).
SUBTYPES: dict[str, dict[str, tuple[float, Ranges]]] = {
    "NEV": {
        "junctional": (
            0.40,
            {
                "diameter_mm": (3.0, 8.5), "growth": (-0.02, 0.06), "aspect": (0.66, 1.0), "irregular": (0.02, 0.16),
                "ragged": (0.01, 0.07), "soft": (0.10, 0.40), "melanin": (0.55, 2.0), "variegated": (0.05, 0.28),
                "asymmetric": (0.0, 0.2), "centre": (-0.2, 0.5), "redness": (0.0, 0.3), "plateau": (0.0, 0.04),
                "network": (0.45, 1.0), "network_atypical": (0.0, 0.4), "globules": (0.0, 0.25),
            },
        ),
        "compound": (
            0.30,
            {
                "diameter_mm": (3.5, 9.5), "growth": (-0.02, 0.06), "aspect": (0.7, 1.0), "irregular": (0.02, 0.13),
                "ragged": (0.01, 0.06), "soft": (0.08, 0.28), "melanin": (0.7, 2.5), "variegated": (0.06, 0.3),
                "asymmetric": (0.0, 0.2), "centre": (-0.1, 0.5), "redness": (0.1, 0.45), "dome": (0.10, 0.32),
                "warty": (0.0, 0.35), "network": (0.0, 0.45), "globules": (0.45, 1.0),
            },
        ),
        "dermal": (
            0.18,
            {
                "diameter_mm": (4.0, 10.0), "growth": (-0.02, 0.05), "aspect": (0.78, 1.0), "irregular": (0.02, 0.08),
                "ragged": (0.0, 0.03), "soft": (0.1, 0.25), "melanin": (0.0, 0.8), "variegated": (0.05, 0.25),
                "redness": (0.2, 0.8), "dome": (0.25, 0.5), "pearly": (0.0, 0.35), "globules": (0.0, 0.5),
                "coils": (0.0, 0.25), "branching": (0.0, 0.2), "warty": (0.0, 0.3),
            },
        ),
        "atypical": (
            0.12,
            {
                "diameter_mm": (5.0, 12.0), "growth": (-0.02, 0.12), "aspect": (0.6, 0.95), "irregular": (0.12, 0.26),
                "ragged": (0.03, 0.1), "soft": (0.2, 0.5), "melanin": (0.7, 2.2), "variegated": (0.22, 0.5),
                "asymmetric": (0.1, 0.45), "centre": (0.0, 0.5), "black": (0.0, 0.6), "redness": (0.2, 0.7),
                "network": (0.5, 1.0), "network_atypical": (0.3, 0.8), "globules": (0.1, 0.6),
            },
        ),
    },
    "MEL": {
        "superficial": (
            0.55,
            {
                "diameter_mm": (6.0, 14.0), "growth": (0.12, 0.6), "aspect": (0.55, 0.95), "irregular": (0.16, 0.38),
                "ragged": (0.03, 0.10), "soft": (0.06, 0.28), "melanin": (0.9, 2.8), "variegated": (0.3, 0.75),
                "asymmetric": (0.25, 0.9), "black": (0.4, 1.8), "redness": (0.1, 0.6), "halo": (0.0, 0.35),
                "regression": (0.0, 0.6), "veil": (0.1, 0.8), "plateau": (0.0, 0.08), "network": (0.3, 1.0),
                "network_atypical": (0.5, 1.0), "globules": (0.1, 0.7), "streaks": (0.2, 1.0), "coils": (0.0, 0.4),
            },
        ),
        "nodular": (
            0.18,
            {
                "diameter_mm": (5.5, 13.0), "growth": (0.3, 0.9), "aspect": (0.7, 1.0), "irregular": (0.06, 0.22),
                "ragged": (0.01, 0.06), "soft": (0.06, 0.2), "melanin": (1.6, 3.4), "variegated": (0.2, 0.55),
                "asymmetric": (0.1, 0.6), "black": (0.5, 1.6), "redness": (0.2, 0.8), "halo": (0.1, 0.5),
                "veil": (0.4, 1.0), "dome": (0.22, 0.5), "pearly": (0.1, 0.5), "ulcer": (0.0, 0.5),
                "globules": (0.0, 0.5), "streaks": (0.0, 0.6), "coils": (0.1, 0.5),
            },
        ),
        "early": (
            0.18,
            {
                "diameter_mm": (4.5, 9.5), "growth": (0.08, 0.45), "aspect": (0.6, 0.95), "irregular": (0.1, 0.28),
                "ragged": (0.02, 0.08), "soft": (0.08, 0.3), "melanin": (0.8, 2.6), "variegated": (0.2, 0.5),
                "asymmetric": (0.15, 0.6), "black": (0.2, 1.2), "redness": (0.1, 0.5), "network": (0.5, 1.0),
                "network_atypical": (0.4, 0.9), "globules": (0.0, 0.5), "streaks": (0.1, 0.7), "veil": (0.0, 0.25),
            },
        ),
        "amelanotic": (
            0.09,
            {
                "diameter_mm": (5.0, 13.0), "growth": (0.2, 0.7), "aspect": (0.65, 0.95), "irregular": (0.1, 0.26),
                "ragged": (0.01, 0.06), "soft": (0.1, 0.3), "melanin": (0.0, 0.5), "variegated": (0.3, 0.7),
                "redness": (0.5, 1.1), "halo": (0.1, 0.5), "dome": (0.05, 0.4), "pearly": (0.0, 0.5),
                "ulcer": (0.0, 0.6), "coils": (0.3, 0.9), "black": (0.0, 0.5),
            },
        ),
    },
    "BCC": {
        "nodular": (
            0.45,
            {
                "diameter_mm": (4.0, 12.0), "growth": (0.05, 0.3), "aspect": (0.68, 1.0), "irregular": (0.04, 0.2),
                "ragged": (0.01, 0.05), "soft": (0.12, 0.35), "melanin": (-0.15, 0.3), "variegated": (0.1, 0.4),
                "redness": (0.15, 0.7), "halo": (0.0, 0.4), "dome": (0.12, 0.42), "rim": (0.0, 0.22),
                "pearly": (0.4, 1.0), "branching": (0.4, 1.0), "ulcer": (0.0, 0.35), "nests": (0.0, 0.25),
            },
        ),
        "ulcerated": (
            0.20,
            {
                "diameter_mm": (6.0, 15.0), "growth": (0.08, 0.35), "aspect": (0.62, 1.0), "irregular": (0.08, 0.26),
                "ragged": (0.02, 0.07), "soft": (0.12, 0.3), "melanin": (-0.1, 0.3), "variegated": (0.15, 0.5),
                "redness": (0.25, 0.85), "halo": (0.1, 0.5), "rim": (0.14, 0.3), "pearly": (0.3, 0.9),
                "ulcer": (0.5, 1.0), "crust": (0.0, 0.45), "branching": (0.3, 0.9), "nests": (0.0, 0.3),
            },
        ),
        "superficial": (
            0.18,
            {
                "diameter_mm": (5.0, 14.0), "growth": (0.05, 0.25), "aspect": (0.6, 0.95), "irregular": (0.1, 0.3),
                "ragged": (0.02, 0.1), "soft": (0.2, 0.5), "melanin": (-0.1, 0.2), "variegated": (0.15, 0.45),
                "redness": (0.35, 0.95), "scale": (0.0, 0.4), "rim": (0.0, 0.12), "pearly": (0.1, 0.4),
                "branching": (0.1, 0.5), "ulcer": (0.0, 0.35), "nests": (0.0, 0.2),
            },
        ),
        "pigmented": (
            0.17,
            {
                "diameter_mm": (4.5, 12.0), "growth": (0.05, 0.3), "aspect": (0.65, 1.0), "irregular": (0.06, 0.22),
                "ragged": (0.01, 0.06), "soft": (0.1, 0.3), "melanin": (0.1, 1.2), "variegated": (0.3, 0.7),
                "asymmetric": (0.0, 0.5), "redness": (0.15, 0.7), "dome": (0.08, 0.36), "pearly": (0.3, 0.8),
                "branching": (0.3, 0.9), "nests": (0.5, 1.0), "ulcer": (0.0, 0.4), "rim": (0.0, 0.15),
            },
        ),
    },
    "SEK": {
        "tan": (
            0.40,
            {
                "diameter_mm": (5.0, 15.0), "growth": (0.0, 0.12), "aspect": (0.6, 1.0), "irregular": (0.05, 0.22),
                "ragged": (0.02, 0.09), "soft": (0.04, 0.12), "melanin": (0.4, 1.3), "variegated": (0.12, 0.4),
                "redness": (0.0, 0.35), "plateau": (0.10, 0.26), "warty": (0.4, 1.0), "milia": (0.3, 1.0),
                "comedones": (0.3, 1.0), "scale": (0.0, 0.2),
            },
        ),
        "dark": (
            0.28,
            {
                "diameter_mm": (5.0, 14.0), "growth": (0.0, 0.15), "aspect": (0.62, 1.0), "irregular": (0.06, 0.26),
                "ragged": (0.02, 0.09), "soft": (0.03, 0.12), "melanin": (1.3, 3.0), "variegated": (0.2, 0.55),
                "asymmetric": (0.0, 0.4), "redness": (0.0, 0.4), "plateau": (0.12, 0.3), "warty": (0.5, 1.0),
                "milia": (0.2, 1.0), "comedones": (0.2, 0.9), "black": (0.0, 0.7), "veil": (0.0, 0.25),
            },
        ),
        "flat": (
            0.22,
            {
                "diameter_mm": (5.0, 14.0), "growth": (0.0, 0.1), "aspect": (0.58, 0.95), "irregular": (0.08, 0.26),
                "ragged": (0.04, 0.14), "soft": (0.05, 0.18), "melanin": (0.35, 1.2), "variegated": (0.15, 0.4),
                "plateau": (0.0, 0.07), "warty": (0.05, 0.4), "network": (0.2, 0.7), "network_atypical": (0.0, 0.4),
                "milia": (0.0, 0.4), "comedones": (0.0, 0.4),
            },
        ),
        "irritated": (
            0.10,
            {
                "diameter_mm": (5.0, 12.0), "growth": (0.0, 0.3), "aspect": (0.65, 1.0), "irregular": (0.06, 0.2),
                "ragged": (0.02, 0.08), "soft": (0.06, 0.15), "melanin": (0.2, 1.0), "variegated": (0.2, 0.5),
                "redness": (0.25, 0.8), "halo": (0.2, 0.7), "plateau": (0.1, 0.26), "warty": (0.3, 0.9),
                "scale": (0.1, 0.5), "crust": (0.1, 0.5), "coils": (0.1, 0.6), "milia": (0.0, 0.5),
            },
        ),
    },
    "ACK": {
        "thin": (
            0.50,
            {
                "diameter_mm": (4.0, 12.0), "growth": (0.0, 0.12), "aspect": (0.6, 1.0), "irregular": (0.14, 0.32),
                "ragged": (0.06, 0.18), "soft": (0.4, 0.8), "variegated": (0.2, 0.5), "redness": (0.3, 0.85),
                "halo": (0.0, 0.3), "scale": (0.3, 0.9), "follicles": (0.4, 1.0), "plateau": (0.0, 0.05),
            },
        ),
        "hyperkeratotic": (
            0.30,
            {
                "diameter_mm": (4.0, 11.0), "growth": (0.0, 0.2), "aspect": (0.6, 1.0), "irregular": (0.12, 0.3),
                "ragged": (0.05, 0.16), "soft": (0.25, 0.6), "variegated": (0.2, 0.5), "redness": (0.3, 0.8),
                "halo": (0.1, 0.5), "scale": (0.5, 1.0), "crust": (0.2, 0.7), "plateau": (0.03, 0.14),
                "follicles": (0.2, 0.8),
            },
        ),
        "pigmented": (
            0.20,
            {
                "diameter_mm": (5.0, 13.0), "growth": (0.0, 0.12), "aspect": (0.6, 0.98), "irregular": (0.14, 0.32),
                "ragged": (0.05, 0.16), "soft": (0.3, 0.7), "melanin": (0.3, 0.9), "variegated": (0.2, 0.5),
                "redness": (0.15, 0.6), "scale": (0.15, 0.7), "follicles": (0.2, 0.8), "network": (0.1, 0.5),
                "network_atypical": (0.2, 0.6),
            },
        ),
    },
    "SCC": {
        "keratotic": (
            0.45,
            {
                "diameter_mm": (6.0, 16.0), "growth": (0.15, 0.7), "aspect": (0.7, 1.0), "irregular": (0.06, 0.22),
                "ragged": (0.02, 0.08), "soft": (0.1, 0.3), "variegated": (0.15, 0.5), "redness": (0.3, 0.95),
                "halo": (0.2, 0.8), "dome": (0.18, 0.42), "rim": (0.0, 0.2), "crust": (0.5, 1.0),
                "scale": (0.1, 0.6), "ulcer": (0.0, 0.35), "coils": (0.3, 0.9), "pearly": (0.0, 0.25),
            },
        ),
        "ulcerated": (
            0.30,
            {
                "diameter_mm": (7.0, 17.0), "growth": (0.2, 0.8), "aspect": (0.65, 1.0), "irregular": (0.08, 0.26),
                "ragged": (0.03, 0.1), "soft": (0.12, 0.35), "variegated": (0.2, 0.6), "redness": (0.4, 1.0),
                "halo": (0.2, 0.9), "rim": (0.12, 0.3), "dome": (0.0, 0.25), "ulcer": (0.5, 1.0),
                "crust": (0.2, 0.8), "scale": (0.0, 0.5), "coils": (0.2, 0.8),
            },
        ),
        "in situ": (
            0.25,
            {
                "diameter_mm": (6.0, 16.0), "growth": (0.05, 0.4), "aspect": (0.6, 0.98), "irregular": (0.1, 0.3),
                "ragged": (0.04, 0.12), "soft": (0.15, 0.4), "melanin": (0.0, 0.35), "variegated": (0.2, 0.5),
                "redness": (0.45, 1.0), "scale": (0.3, 0.9), "crust": (0.0, 0.5), "plateau": (0.03, 0.12),
                "coils": (0.4, 1.0), "halo": (0.0, 0.3),
            },
        ),
    },
}  # fmt: skip

# What each diagnosis is taken for. Every lesion borrows some of its findings from one of these, most a little, some
# much: the dial of the data set's difficulty.
LOOKALIKES: dict[str, tuple[str, ...]] = {
    "ACK": ("SCC", "BCC", "SEK"),
    "BCC": ("SCC", "ACK", "NEV"),
    "MEL": ("NEV", "SEK", "BCC"),
    "NEV": ("MEL", "SEK", "BCC"),
    "SCC": ("ACK", "BCC"),
    "SEK": ("NEV", "MEL", "ACK"),
}
BORROWED = (0.6, 3.0)  # parameters of the beta distribution of the borrowed share
MOST_BORROWED = 0.6

# A finding fainter than this would not be seen; leaving it out saves the painting.
FAINT = 0.05
FINDINGS = tuple(field.name for field in fields(Look) if field.default == 0.0 and field.name != "growth")


def draw_look(diagnosis: str, rng: np.random.Generator) -> tuple[str, Look]:
    """Draw a subtype of the diagnosis and its findings; returns the subtype's name and the look."""
    subtype, own = _draw_typical(diagnosis, rng)
    others = LOOKALIKES[diagnosis]
    _, other = _draw_typical(others[int(rng.integers(len(others)))], rng)
    share = MOST_BORROWED * float(rng.beta(*BORROWED))
    mixed = {
        field.name: (1 - share) * getattr(own, field.name) + share * getattr(other, field.name)
        for field in fields(Look)
    }
    mixed.update({finding: 0.0 for finding in FINDINGS if abs(mixed[finding]) < FAINT})
    return subtype, Look(**mixed)


def _draw_typical(diagnosis: str, rng: np.random.Generator) -> tuple[str, Look]:
    subtypes = SUBTYPES[diagnosis]
    names = list(subtypes)
    shares = np.cumsum([share for share, _ in subtypes.values()])
    name = names[int(np.searchsorted(shares[:-1], rng.random(), side="right"))]
    ranges = subtypes[name][1]
    places = rng.random(len(ranges)).tolist()
    drawn = {
        finding: low + place * (high - low)
        for place, (finding, (low, high)) in zip(places, ranges.items(), strict=True)
    }
    return name, Look(**drawn)
