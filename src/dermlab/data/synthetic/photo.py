"""From a lesion to a photo: the skin around it, what lies before the lens, light and camera."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dermlab.core.randomness import generator
from dermlab.data.synthetic.canvas import RESTING_BLOOD, Canvas, View, melanin_of, strokes
from dermlab.data.synthetic.lesion import paint_lesion
from dermlab.data.synthetic.patients import Patient, Shot
from dermlab.data.synthetic.textures import Field, compose, limit, ramp, sample, smooth_noise, turn_and_scale, white

Picture = NDArray[Any]  # uint8 BGR

LEAST_RENDERED_PX = 112  # smaller pictures are rendered larger and reduced: a hair is thinner than their pixel

# White balance (R, G, B) and saturation of each device: whatever the diagnosis.
DEVICES: dict[str, tuple[tuple[float, float, float], float]] = {
    "phone-a": ((1.03, 1.0, 0.97), 1.08),
    "phone-b": ((0.97, 1.0, 1.05), 0.95),
    "phone-c": ((1.06, 0.99, 0.92), 1.0),
    "scope-x": ((1.02, 0.97, 1.03), 1.05),
    "scope-y": ((0.98, 1.0, 1.02), 0.95),
}


def render(shot: Shot, seed: int, size_px: int) -> tuple[Picture, Picture]:
    """Render one photo and its mask.

    Args:
        shot: what is photographed.
        seed: the clinic's seed.
        size_px: side of the picture; the scene does not depend on it.

    Returns:
        The photo (size_px, size_px, 3) uint8 sRGB in OpenCV's BGR order, and the lesion's mask (size_px, size_px)
        uint8, 0 or 255.
    """
    factor = -(-LEAST_RENDERED_PX // size_px) if size_px < LEAST_RENDERED_PX else 1
    size = size_px * factor
    rng = generator(seed, "camera", shot.number)
    view = _view(shot, size, rng)
    lesion = shot.lesion
    canvas = _skin(lesion.patient, lesion.region, view, generator(seed, "skin", lesion.number))
    inside = paint_lesion(
        canvas,
        lesion.look,
        shot.diameter_mm / 2,
        view,
        lambda name: generator(seed, "lesion", lesion.number, name),
    )
    _ink(canvas, view, shot.diameter_mm / 2, rng)
    planes = canvas.colours()
    _light(planes, canvas, view, rng)
    _hair(planes, lesion.patient, lesion.region, view, rng)
    _ruler(planes, view, rng)
    picture = _expose(planes, shot, view, rng, size_px)
    if factor > 1:
        inside = cv2.resize(inside, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return picture, (inside > 0.5) * np.uint8(255)


def _view(shot: Shot, size: int, rng: np.random.Generator) -> View:
    field_mm = (shot.lesion.scope_mm if shot.dermoscopy else shot.lesion.field_mm) * rng.uniform(0.96, 1.04)
    mm_px = field_mm / size
    angle = rng.uniform(0, 2 * np.pi)
    spare = max(0.0, 0.5 * field_mm - 0.62 * shot.diameter_mm)
    offset = 0.3 * spare * rng.uniform(-1, 1, 2)
    to_mm = turn_and_scale(angle, mm_px)
    to_mm[:, 2] = to_mm[:, :2] @ np.full(2, (1 - size) / 2) + offset
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.25)
    light = (float(np.cos(azimuth) * np.cos(height)), float(np.sin(azimuth) * np.cos(height)), float(np.sin(height)))
    return View(size=size, px_mm=1 / mm_px, to_mm=to_mm, light=light, dermoscopy=shot.dermoscopy)


def _skin(patient: Patient, region: str, view: View, rng: np.random.Generator) -> Canvas:
    """Return the bare skin: tone, freckles, redness, relief."""
    size = view.size
    damage = patient.sun_damage * (1.0 if region in {"face", "scalp", "ear", "neck", "hand", "arm"} else 0.5)
    ruddy = {"face": 0.16, "ear": 0.14, "neck": 0.1, "scalp": 0.08}.get(region, 0.0) + 0.05 * rng.standard_normal()
    grain_angle, x, y, cell, stretch, freckles, shine = rng.random(7).tolist()
    place = (0.3 + 0.4 * x, 0.3 + 0.4 * y)
    lattice = smooth_noise(rng, (5, 11), 48, 2)
    matrix = view.to_mm * (48 / 60)  # the lattice spans 60 mm
    matrix[:, 2] += 24
    tone = cv2.split(cv2.warpAffine(lattice, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    cell_mm = 0.55 + 0.4 * cell
    fibre = turn_and_scale(np.pi * grain_angle, 1 / cell_mm, 1 / (cell_mm * (1 + 0.8 * stretch)))
    relief = sample("plateau", compose(fibre, view.to_mm), size, place)
    grain = sample("grain", view.to_mm, size, place)

    base = melanin_of(patient.typology_angle)
    lines = 0.05 + (0.06 + 0.05 * base if view.dermoscopy else 0.0)
    melanin = np.float32(0.05 + 0.05 * damage) * tone[0] + np.float32(0.035) * grain
    melanin += np.float32(1.0)
    melanin *= np.float32(base)
    melanin += np.float32(0.7 * lines) - np.float32(lines) * relief
    freckled = freckles**2 * (0.3 + damage)
    if freckled > 0.15:
        spots = sample("mottle", view.to_mm / 0.8, size, (place[1], place[0]))
        melanin += np.float32(0.3 * min(freckled, 1.0)) * ramp(spots - np.float32(1.6 - 0.4 * freckled), 1.4)
    blood = np.float32(0.05 + 0.08 * damage) * tone[1] + np.float32(0.035) * grain
    blood += np.float32(RESTING_BLOOD + ruddy + 0.08 * damage + (0.06 if view.dermoscopy else 0.0))
    height = np.float32(0.025 + 0.035 * damage) * relief + np.float32(0.018) * grain
    return Canvas(melanin=melanin, blood=blood, height=height, gloss=np.full_like(grain, 0.05 + 0.06 * shine))


def _light(planes: list[Field], canvas: Canvas, view: View, rng: np.random.Generator) -> None:
    """Shade the relief (Lambert) and add what the surface mirrors, in place."""
    slope_x, slope_y, falloff, contrast, shine = rng.random(5).tolist()
    side = np.linspace(-1, 1, view.size, dtype=np.float32)
    if view.dermoscopy:
        bowl = np.float32(-0.05 - 0.2 * falloff) * side * side
        shade = (1.08 + np.float32(0.1 * (slope_x - 0.5)) * side + bowl)[None, :] + bowl[:, None]
        for plane in planes:
            plane *= shade
        return
    # The body curves away: the light falls off across the picture.
    curve = (1 + np.float32(0.3 * (slope_x - 0.5)) * side)[None, :] + (np.float32(0.3 * (slope_y - 0.5)) * side)[
        :, None
    ]
    lx, ly, lz = view.light
    scale = view.px_mm / 2
    gx = cv2.Sobel(canvas.height, cv2.CV_32F, 1, 0, ksize=1, scale=scale)
    gy = cv2.Sobel(canvas.height, cv2.CV_32F, 0, 1, ksize=1, scale=scale)
    strength = (0.6 + 0.4 * contrast) / lz
    shade = 1 - np.float32(strength * lx) * gx - np.float32(strength * ly) * gy
    shade /= cv2.sqrt(1 + gx * gx + gy * gy)
    limit(shade, 0.25, 1.5)
    shade *= curve
    # Mirrored light: the surface faces halfway between the light and the lens.
    gx = gx + np.float32(lx / (1 + lz))
    gy = gy + np.float32(ly / (1 + lz))
    miss = gx * gx + gy * gy
    mirrored = cv2.exp(miss * np.float32(-1 / 0.045)) * canvas.gloss * np.float32(0.4 + 0.9 * shine)
    for plane in planes:
        plane *= shade
        plane += mirrored


def _ink(canvas: Canvas, view: View, radius_mm: float, rng: np.random.Generator) -> None:
    """Now and then a surgeon's pen has marked the place."""
    kind = rng.random()
    if kind > 0.10:
        return
    start, sweep = rng.uniform(0, 2 * np.pi), rng.uniform(2.5, 6.4)
    reach = radius_mm * rng.uniform(1.35, 1.7) + 1.0
    wobble = rng.normal(0, 0.05, 40).cumsum() * 0.3
    angles = start + np.linspace(0, sweep, 40)
    if kind < 0.06:
        line = (reach * (1 + wobble))[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:  # a short dash beside it
        direction = np.array([np.cos(start), np.sin(start)])
        side = np.array([-direction[1], direction[0]])
        line = reach * direction + np.linspace(-1.5, 1.5, 40)[:, None] * side + wobble[:, None]
    width_mm = float(rng.uniform(0.5, 0.9))
    pen = strokes([line], [width_mm], view.to_mm, view.size, view.px_mm)
    canvas.cover(pen * limit(0.45 + 4 * canvas.height, 0.3, 0.65), ((62, 40, 120), (40, 52, 128))[kind < 0.03])


def _hair(planes: list[Field], patient: Patient, region: str, view: View, rng: np.random.Generator) -> None:
    amount = patient.hair * {"scalp": 1.6, "leg": 1.2, "arm": 1.1, "chest": 1.1, "face": 0.6}.get(region, 0.8)
    n = int(rng.poisson(14 * amount**2 * (1.3 if view.dermoscopy else 1.0)))
    if n == 0:
        return
    field_mm = view.size / view.px_mm
    grey = rng.random() < patient.sun_damage * 0.5
    dark = (150, 142, 134) if grey else ((52, 36, 28), (84, 58, 38), (30, 24, 22))[int(rng.integers(3))]
    heading = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.5, n)
    start = rng.uniform(-0.6, 0.6, (n, 2)) * field_mm
    length = field_mm * rng.uniform(0.2, 0.8, n)
    bend = rng.normal(0, 0.5, n)
    along = np.linspace(0, 1, 10)
    angles = heading[:, None] + bend[:, None] * along
    steps = (length[:, None] / len(along))[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=2)
    lines = start[:, None, :] + np.cumsum(steps, axis=1)
    hair = strokes(list(lines), rng.uniform(0.04, 0.085, n).tolist(), view.to_mm, view.size, view.px_mm)
    colour = (np.array(dark) / 255) ** 2.2
    opacity = hair * np.float32(0.85)
    for plane, value in zip(planes, colour.tolist(), strict=True):
        plane += opacity * (np.float32(value) - plane)


def _ruler(planes: list[Field], view: View, rng: np.random.Generator) -> None:
    """Now and then a scale lies at the edge: a white strip before the camera, bare ticks in a dermatoscope."""
    if rng.random() > 0.12:
        return
    field_mm = view.size / view.px_mm
    # In picture coordinates, millimetres from the centre, turned by a multiple of 90 degrees and a little more.
    turn = turn_and_scale(0.5 * np.pi * rng.integers(4) + rng.normal(0, 0.06), 1 / view.px_mm)
    turn[:, 2] = turn[:, :2] @ np.full(2, (1 - view.size) / 2)
    edge = -0.5 * field_mm + (1.8 if view.dermoscopy else 3.0)
    if not view.dermoscopy:
        _, y = view.coordinates(turn)
        strip = ramp(np.float32(edge) - y, 0.25) * np.float32(0.92)
        for plane, value in zip(planes, (0.74, 0.74, 0.70), strict=True):
            plane += strip * (np.float32(value) - plane)
    ticks = np.arange(-int(field_mm), int(field_mm) + 1)
    lines = [np.array([[t, edge - 0.1], [t, edge - (1.5 if t % 5 == 0 else 0.8)]], dtype=float) for t in ticks]
    marks = strokes(lines, [0.14] * len(lines), turn, view.size, view.px_mm) * np.float32(0.85)
    for plane in planes:
        plane *= 1 - marks


def _expose(planes: list[Field], shot: Shot, view: View, rng: np.random.Generator, size_px: int) -> Picture:
    """Camera: white balance, exposure, blur, vignette, noise, tone curve, and now and then a heavy JPEG."""
    balance, saturation = DEVICES[shot.device]
    cast = np.array(balance) * np.exp(0.035 * rng.standard_normal(3))
    lamp, blurred, blur, corner, ring, vignette, sigma, jpeg, quality = rng.random(9).tolist()
    spread = rng.standard_normal(3).tolist()
    if lamp < 0.10:  # lamp light that the camera did not correct
        cast *= np.array([1.14, 1.0, 0.78])
    saturation *= float(np.exp(0.06 * spread[0]))
    exposure = (0.30 / max(cv2.mean(planes[1])[0], 0.02)) ** 0.2 * float(np.exp(0.12 * spread[1]))
    mix = exposure * cast[:, None] * (saturation * np.eye(3) + (1 - saturation) / 3)
    picture = cv2.transform(cv2.merge(planes), mix[::-1])  # RGB in, BGR out
    size = view.size
    blur_px = size * (0.0 if blurred < 0.55 else 0.002 + 0.004 * blur if blurred < 0.91 else 0.006 + 0.004 * blur)
    if blur_px > 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), blur_px)
    if size != size_px:
        picture = cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_AREA)
    side = np.linspace(-1, 1, size_px, dtype=np.float32)
    square = side * side
    shade = (1 - np.float32(0.125 * vignette) * square)[None, :] - (np.float32(0.125 * vignette) * square)[:, None]
    if corner < (0.22 if view.dermoscopy else 0.03):  # the round edge of the optics, seldom quite centred
        x, y = rng.normal(0, 0.06, 2).astype(np.float32)
        radius = cv2.sqrt(((side - x) ** 2)[None, :] + ((side - y) ** 2)[:, None])
        shade *= ramp(np.float32(1.0 + 0.32 * ring) - radius, 0.04 + 0.1 * vignette)
    tile = white()
    row, column = rng.integers(0, tile.shape[0] - size_px + 1, 2).tolist()
    shade += np.float32(0.004 + 0.014 * sigma) * tile[row : row + size_px, column : column + size_px]
    picture = cv2.multiply(picture, cv2.merge([shade, shade, shade]))
    encoded = cv2.convertScaleAbs(cv2.pow(picture, 1 / 2.2), alpha=255)
    result = cv2.LUT(encoded, _contrast_curve(float(np.exp(0.1 * spread[2]))))
    if jpeg < 0.2:
        heavy = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, 35 + int(40 * quality)])[1]
        result = np.asarray(cv2.imdecode(heavy, cv2.IMREAD_COLOR))
    return result


def _contrast_curve(contrast: float) -> Picture:
    """Return a contrast about middle grey as a table of 256 levels."""
    return limit(127.5 + np.float32(contrast) * (_LEVELS - 127.5), 0, 255).astype(np.uint8)


_LEVELS = np.arange(256, dtype=np.float32)
