"""One lesion, painted: border, pigment, surface and dermoscopic structures from the findings of its ``Look``.

Everything that belongs to the lesion is drawn in its own frame (its radius is 1) from its own random streams, so that
the next visit, or the dermatoscope a minute later, shows the same lesion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermlab.data.synthetic.canvas import Canvas, View, spots, strokes
from dermlab.data.synthetic.looks import Look
from dermlab.data.synthetic.textures import (
    Affine,
    Field,
    compose,
    limit,
    ramp,
    sample,
    sample_at,
    smooth_noise,
    turn_and_scale,
)

REACH = 2.4  # the lesion's own noise covers this many radii each way; nothing of a lesion lies further out
NOISE_PX = 56

Stream = Callable[[str], np.random.Generator]
Points = NDArray[np.floating]  # (k, 2)


@dataclass(frozen=True)
class _Ground:
    """A lesion's geometry in one photo: every field is (size, size), every coordinate in radii from its centre."""

    look: Look
    view: View
    radius_mm: float
    frame: Affine  # pixel → lesion coordinates
    unit_px: float  # pixels a radius
    u: Field
    v: Field
    rho: Field  # distance from the centre
    border: Field  # > 0 inside, about the distance to the (smooth) border
    inside: Field  # 0..1
    noise: list[Field]  # four smooth fields of about unit spread
    fine: Field  # noise of all scales
    place: tuple[float, float]  # which part of the texture tiles this lesion is cut from
    tilt: float  # direction in which the pigment rises, radians
    dark: tuple[float, float]  # direction of the darkest part
    stream: Stream

    def texture(self, name: str, cells: float) -> Field:
        """Return a texture of ``cells`` cells a radius, fixed to the lesion."""
        return sample(name, self.frame * cells, self.view.size, self.place, bounded=True)

    def bent(self, name: str, cells: float, amount: float) -> Field:
        """Return :meth:`texture` bent by the lesion's noise, by ``amount`` cells: nothing that grows is a grid."""
        x, y = self.view.coordinates(self.frame * cells)
        bend = np.float32(amount)
        return sample_at(name, x + bend * self.noise[1], y + bend * self.noise[3], cells / self.unit_px, self.place)

    def blob(self, centre: tuple[float, float], radius: float, noise: Field, wobble: float, soft: float) -> Field:
        """Return a smooth irregular patch around ``centre``, 0..1."""
        distance = cv2.magnitude(self.u - np.float32(centre[0]), self.v - np.float32(centre[1]))
        return ramp(np.float32(radius) - distance + np.float32(wobble) * noise, soft)

    def scattered(self, name: str, n: int, smallest: float, largest: float, reach: float = 0.85) -> Field:
        """Return ``n`` discs of radius ``smallest … largest``, spread evenly over the lesion."""
        rng = self.stream(name)
        angle, distance = rng.uniform(0, 2 * np.pi, n), reach * np.sqrt(rng.uniform(0, 1, n))
        centres = np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1)
        radii = rng.uniform(smallest, largest, n)
        return spots(centres, radii, self.frame, self.view.size, self.unit_px) * self.inside

    def lines(self, drawn: tuple[list[Points], list[float]]) -> Field:
        """Return polylines given as (points, widths)."""
        return strokes(*drawn, self.frame, self.view.size, self.unit_px)


def paint_lesion(canvas: Canvas, look: Look, radius_mm: float, view: View, stream: Stream) -> Field:
    """Paint a lesion on the canvas, in place.

    Args:
        canvas: the skin.
        look: the findings.
        radius_mm: its mean radius at this visit.
        view: where the camera stands.
        stream: gives the lesion's random stream of a name, fresh at each call: the same at every visit.

    Returns:
        How much each pixel belongs to the lesion, (size, size) float32 in 0..1; one half is the border.
    """
    ground = _lay_out(look, radius_mm, view, stream)
    _pigment(canvas, ground)
    _blood(canvas, ground)
    if not view.dermoscopy:
        _relief(canvas, ground)
    _structures(canvas, ground)
    _surface(canvas, ground)
    return ground.inside


def _lay_out(look: Look, radius_mm: float, view: View, stream: Stream) -> _Ground:
    rng = stream("border")
    angle, tilt, dark = rng.uniform(0, 2 * np.pi, 3).tolist()
    place = (float(rng.uniform(0.42, 0.58)), float(rng.uniform(0.42, 0.58)))
    tile = smooth_noise(rng, (8, 16), NOISE_PX, 4)
    stretch = float(np.sqrt(look.aspect))
    frame = compose(turn_and_scale(angle, stretch / radius_mm, 1 / (stretch * radius_mm)), view.to_mm)
    unit_px = radius_mm * view.px_mm
    matrix = frame * (NOISE_PX / (2 * REACH))
    matrix[:, 2] += NOISE_PX / 2
    shape = (view.size, view.size)
    noise = cv2.split(cv2.warpAffine(tile, matrix, shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    fine = sample("grain", frame * 6.0, view.size, place, bounded=True)
    u, v = view.coordinates(frame)
    rho = cv2.magnitude(u, v)
    border = 1.0 - rho + np.float32(0.55 * look.irregular) * noise[0]
    return _Ground(
        look=look,
        view=view,
        radius_mm=radius_mm,
        frame=frame,
        unit_px=unit_px,
        u=u,
        v=v,
        rho=rho,
        border=border,
        inside=ramp(border + np.float32(0.6 * look.ragged) * fine, max(look.soft, 1.5 / unit_px)),
        noise=list(noise),
        fine=fine,
        place=place,
        tilt=tilt,
        dark=(float(np.cos(dark)), float(np.sin(dark))),
        stream=stream,
    )


def _pigment(canvas: Canvas, ground: _Ground) -> None:
    """Lay brown, black and blue, and take pigment away where the lesion regresses."""
    look, noise, inside = ground.look, ground.noise, ground.inside
    strength = 1 + np.float32(0.9 * look.variegated) * noise[1]
    strength += np.float32(0.25 * look.variegated + 0.05) * ground.fine
    if look.asymmetric:
        slope = np.float32(np.cos(ground.tilt)) * ground.u + np.float32(np.sin(ground.tilt)) * ground.v
        strength += np.float32(0.9 * look.asymmetric) * slope
    if look.centre:
        strength += np.float32(look.centre) * (0.5 - np.minimum(ground.rho * ground.rho, 1.0))
    limit(strength, 0.08, 2.6)
    pigment = np.float32(look.melanin) * strength * inside
    if look.black:
        dark = ground.blob((0.45 * ground.dark[0], 0.45 * ground.dark[1]), 0.42, noise[2], 0.28, 0.3)
        pigment += np.float32(look.black) * dark * inside
    if look.regression:
        scar = ground.blob((-0.35 * ground.dark[0], -0.4 * ground.dark[1]), 0.38, noise[3], 0.25, 0.35) * inside
        pigment *= 1 - np.float32(0.8 * look.regression) * scar
        scar *= limit(np.float32(0.8) + np.float32(0.25) * noise[1] + np.float32(0.15) * ground.fine, 0, 1)
        canvas.cover(np.float32(0.5 * look.regression) * scar, (222, 190, 188))
    canvas.melanin += pigment
    if look.veil:
        veil = ground.blob((0.3 * ground.dark[0], 0.3 * ground.dark[1]), 0.42, noise[1], 0.22, 0.8) * inside
        veil *= limit(np.float32(0.75) + np.float32(0.3) * noise[2] + np.float32(0.18) * ground.fine, 0, 1)
        canvas.cover(np.float32((0.6 if ground.view.dermoscopy else 0.2) * look.veil) * veil, (118, 124, 146))


def _blood(canvas: Canvas, ground: _Ground) -> None:
    """Lay redness in the lesion and around it."""
    look = ground.look
    if look.redness:
        canvas.blood += np.float32(look.redness) * ground.inside * (1 + 0.35 * ground.noise[3] + 0.12 * ground.fine)
    if look.halo:
        around = ramp(ground.border + np.float32(0.25), 0.9)
        canvas.blood += np.float32(0.55 * look.halo) * around * (1 + 0.2 * ground.noise[2])


def _relief(canvas: Canvas, ground: _Ground) -> None:
    """Raise the lesion: heights in millimetres, so that its shading does not depend on the picture's size."""
    look, inside, radius = ground.look, ground.inside, ground.radius_mm
    wavy = 1 + np.float32(0.13) * ground.noise[2]
    # A lesion stretches or replaces the skin's own lines.
    canvas.height *= 1 - inside * np.float32(0.75 if max(look.dome, look.plateau) > 0.08 else 0.25)
    canvas.gloss += np.float32(0.35 * look.pearly) * inside
    if look.dome:
        canvas.height += np.float32(look.dome * radius) * _domed(ground.border) * wavy
    if look.plateau:
        canvas.height += np.float32(0.8 * look.plateau * radius) * ramp(ground.border - np.float32(0.06), 0.34) * wavy
    if look.rim:
        ring = (ground.border - np.float32(0.22)) * np.float32(1 / 0.16)
        canvas.height += np.float32(0.55 * look.rim * radius) * cv2.exp(-ring * ring) * (0.8 + 0.5 * ground.noise[1])
    if look.warty:
        cobble = ground.bent("cobble", 5.0, 0.5)
        canvas.height += np.float32(0.065 * look.warty * radius) * inside * cobble
        canvas.melanin += np.float32(0.9 * look.warty) * inside * (0.5 - cobble) * np.minimum(canvas.melanin, 1.2)
        canvas.gloss *= 1 - 0.5 * inside


def _domed(border: Field) -> Field:
    """Return a dome's profile over the distance to the border: 0 outside, 1 in the middle, no crease at its foot."""
    deep = limit(border + np.float32(0.1), 0, 1)
    return ramp(deep - np.float32(0.45), 0.9) * (1.6 - 0.6 * deep)


def _structures(canvas: Canvas, ground: _Ground) -> None:
    """Paint what a dermatoscope shows below the surface; to the naked eye only traces of it remain."""
    look, inside, noise, radius = ground.look, ground.inside, ground.noise, ground.radius_mm
    dermoscopy = ground.view.dermoscopy
    seen = 1.0 if dermoscopy else 0.25
    if look.network and look.melanin > 0.2:
        lines = ground.bent("network", radius / (0.26 + 0.14 * look.network_atypical), 0.4 + look.network_atypical)
        patchy = limit(1 + np.float32(1.5 * look.network_atypical) * noise[2], 0, 2.2)
        if look.network_atypical < 0.5:  # a regular network thins out towards the edge, an atypical one ends abruptly
            patchy *= limit(1.15 - 0.75 * ground.rho, 0, 1)
        canvas.melanin += (
            np.float32(seen * look.network * (0.5 + 0.6 * look.melanin)) * (lines - 0.33) * inside * patchy
        )
    if look.globules and look.melanin > 0.1:
        discs = ground.texture("discs", radius / 0.45)
        canvas.melanin += np.float32(seen * look.globules * (0.5 + 0.5 * look.melanin)) * (discs - 0.15) * inside
    if n := int(13 * look.nests):
        nests = ground.scattered("nests", n, 0.07, 0.19)
        nests = cv2.GaussianBlur(nests, (0, 0), max(0.6, 0.03 * ground.unit_px))
        canvas.cover(np.float32(0.75 * (0.4 + 0.6 * seen) * look.nests) * nests, (72, 76, 96))
    if look.branching > 0.1:
        vessels = ground.lines(_branching(look.branching, ground.stream("branching"))) * (0.25 + 0.75 * inside)
        canvas.blood += np.float32((0.4 + 0.6 * seen) * 2.1 * look.branching) * vessels
    if n := int(16 * look.comedones):
        openings = ground.scattered("comedones", n, 0.03, 0.075)
        canvas.cover(np.float32(0.35 + 0.45 * seen) * openings, (66, 44, 30))
    if not dermoscopy:
        return
    if look.warty:  # ridges and fissures show as colour
        ridges = 0.45 - ground.bent("cobble", 4.0, 0.5)
        canvas.melanin += np.float32(0.9 * look.warty) * inside * ridges * (0.35 + 0.3 * canvas.melanin)
    if look.streaks > 0.1:
        drawn = ground.lines(_streaks(look.streaks, ground.stream("streaks")))
        canvas.melanin += np.float32(0.4 + 0.6 * look.melanin) * drawn * ramp(ground.border + np.float32(0.2), 0.35)
    if look.coils:
        dots = ground.texture("dots", radius / 0.42) * limit(0.6 + 0.6 * noise[1], 0, 1)
        canvas.blood += np.float32(2.2 * look.coils) * dots * inside
    if look.follicles:
        openings = ground.texture("discs", radius / 0.62)
        canvas.blood += np.float32(0.7 * look.follicles) * inside * (0.45 - openings)
        canvas.cover(np.float32(0.5 * look.follicles) * openings * inside, (236, 218, 186))
    if n := int(15 * look.milia):
        milia = ground.scattered("milia", n, 0.015, 0.038)
        milia = cv2.GaussianBlur(milia, (0, 0), max(0.5, 0.012 * ground.unit_px))
        canvas.cover(np.float32(0.62) * milia, (236, 220, 190))


def _surface(canvas: Canvas, ground: _Ground) -> None:
    """Lay scale, crust and ulcer on the lesion."""
    look, inside, noise, fine = ground.look, ground.inside, ground.noise, ground.fine
    if not (look.scale or look.crust or look.ulcer):
        return
    seen = 0.65 if ground.view.dermoscopy else 1.0  # gel makes what is dry translucent
    broken = np.float32(0.6) * ground.texture("mottle", 4.0) + np.float32(0.5) * ground.texture("mottle", 10.0)
    broken += np.float32(0.45) * fine
    if look.scale:
        # Sheets of dull scale with brighter, lifted flakes on them; both thin out towards their edges.
        flakes = np.float32(1.3) * broken + np.float32(0.8) * noise[2]
        reach = limit(inside * 1.3, 0, 1)
        sheet = ramp(flakes + np.float32(2.4 * look.scale - 2.0), 3.4) * reach
        lifted = ramp(flakes + np.float32(2.0 * look.scale - 2.5), 1.8) * reach
        canvas.cover(np.float32(seen * (0.04 + 0.5 * look.scale)) * sheet, (212, 190, 174))
        canvas.cover(np.float32(seen * (0.04 + 0.56 * look.scale)) * lifted, (232, 222, 208))
        canvas.height += np.float32(0.035) * (sheet + lifted)
        canvas.gloss += np.float32(0.06) * lifted
    if look.crust:
        crust = ground.blob((0.08, -0.05), 0.62 * look.crust, noise[1] + 0.8 * broken, 0.13, 0.4) * inside
        canvas.cover(np.float32(seen) * crust * limit(0.68 + 0.2 * broken, 0.2, 0.9), (198, 164, 120))
        canvas.cover(crust * limit(0.22 * noise[3] + 0.2 * broken - 0.04, 0, 0.65), (126, 80, 52))
        canvas.cover(crust * limit(0.16 * broken - 0.25 * noise[3], 0, 0.45), (234, 220, 190))
        canvas.height += np.float32(0.22 * look.crust) * crust * (1 + 0.1 * broken)
        canvas.gloss *= 1 - 0.6 * crust
    if look.ulcer:
        ulcer = ground.blob((-0.06, 0.07), 0.5 * look.ulcer, noise[3] + 0.7 * broken, 0.13, 0.3) * inside
        ulcer *= np.float32(min(1.0, 0.3 + 1.4 * look.ulcer))
        canvas.cover(ulcer * limit(0.68 + 0.14 * broken, 0.3, 0.9), (134, 54, 50))
        canvas.cover(ulcer * limit(0.35 * noise[2] + 0.25 * broken, 0, 0.75), (58, 22, 22))
        canvas.height -= np.float32(0.3 * look.ulcer) * ulcer
        canvas.gloss += np.float32(0.3) * ulcer


def _streaks(amount: float, rng: np.random.Generator) -> tuple[list[Points], list[float]]:
    """Radial lines at one sector of the edge."""
    n = int(24 * amount)
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(0, 1.2 + 2.5 * amount, n)
    inner, length, bend = rng.uniform(0.72, 0.92, n), rng.uniform(0.15, 0.4, n), rng.normal(0, 0.06, n)
    along = np.array([0.0, 0.5, 1.0])
    radii = inner[:, None] + length[:, None] * along
    angles = angle[:, None] + bend[:, None] * along
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=2)
    return list(points), rng.uniform(0.025, 0.06, n).tolist()


def _branching(amount: float, rng: np.random.Generator) -> tuple[list[Points], list[float]]:
    """Arborising vessels: trunks that come in over the edge, thin out and split."""
    lines: list[Points] = []
    widths: list[float] = []
    for _ in range(int(2 + 4 * amount)):
        start = rng.uniform(0, 2 * np.pi)
        point = 1.05 * np.array([np.cos(start), np.sin(start)])
        heading = start + np.pi + rng.normal(0, 0.5)
        trunk = _wander(point, heading, 18, 0.065, rng)
        width = float(rng.uniform(0.012, 0.028))
        lines += [trunk[:10], trunk[9:]]
        widths += [width, 0.7 * width]
        for node in (6, 10, 14):
            side = heading + rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.1)
            lines.append(_wander(trunk[node], side, 10, 0.05, rng))
            widths.append(0.5 * width)
    return lines, widths


def _wander(point: Points, heading: float, steps: int, length: float, rng: np.random.Generator) -> Points:
    headings = heading + np.cumsum(rng.normal(0, 0.2, steps))
    moves = length * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    return np.vstack([point, point + np.cumsum(moves, axis=0)])
