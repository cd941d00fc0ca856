"""The chest of a synthetic patient: how much each part of it attenuates the beam.

Everything is a function of anatomical coordinates (`ChestCoordinates`): x runs from the patient's right (-1)
to the left (+1), y from the neck (-1) down to the abdomen (+1). Attenuations add up along the beam, as in a
radiograph, so that ribs show through a heart shadow and an opacity through the ribs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Array = npt.NDArray[Any]  # float32 throughout
TEXTURE_SIZE = 128  # a power of two: indices wrap by masking


@dataclass(frozen=True)
class Patient:
    """A child's build. `age` runs from 0 (infant) to 1 (adolescent); lengths are in frame units."""

    age: float
    cage_width: float
    apex: float
    base: float
    rib_spacing: float
    rib_density: float
    rib_slope: float
    heart_width: float
    heart_shift: float
    diaphragm: float
    dome: float
    wall: float
    mediastinum: float
    spine_bend: float
    arm_angle: tuple[float, float]
    vessels: float
    gas_bubble: float
    texture_seed: int


@dataclass(frozen=True)
class ChestCoordinates:
    """Anatomical coordinates `x`, `y` of each pixel, float32 [H, W], and what follows from them alone."""

    x: Array
    y: Array
    side: Array
    cage: Array
    lateral: Array
    diaphragm: Array


def draw_patient(patient_seed: int) -> Patient:
    """The build of patient `patient_seed`. It does not depend on the class, so it cannot reveal it."""
    rng = np.random.default_rng([11, patient_seed])
    age = float(rng.beta(1.3, 1.6))
    return Patient(
        age=age,
        cage_width=rng.uniform(0.60, 0.68) - 0.04 * age,
        apex=rng.uniform(-0.72, -0.66) - 0.06 * age,
        base=rng.uniform(0.50, 0.58) + 0.08 * age,
        rib_spacing=rng.uniform(0.128, 0.146),
        rib_density=rng.uniform(0.20, 0.32) + 0.06 * age,
        rib_slope=rng.uniform(0.10, 0.20) + 0.14 * age,
        heart_width=rng.uniform(0.26, 0.32) - 0.05 * age,
        heart_shift=rng.uniform(0.09, 0.14),
        diaphragm=rng.uniform(0.34, 0.44) + 0.08 * age,
        dome=rng.uniform(0.11, 0.18),
        wall=rng.uniform(0.07, 0.14),
        mediastinum=rng.uniform(0.13, 0.16)
        - 0.03 * age
        + (0.05 if age < 0.2 and rng.random() < 0.5 else 0.0),
        spine_bend=rng.normal(0, 0.015),
        arm_angle=(rng.uniform(-1.0, 1.3), rng.uniform(-1.0, 1.3)),
        vessels=rng.uniform(0.6, 1.3),
        gas_bubble=rng.uniform(0.0, 1.0),
        texture_seed=int(rng.integers(1 << 32)),
    )


def locate(patient: Patient, x: Array, y: Array, breath: float) -> ChestCoordinates:
    """The chest coordinates of pixels; `breath` (about -0.05 to 0.05) lowers the diaphragm."""
    level = np.clip((y - patient.apex) / (patient.base - patient.apex + 0.25), 0, 1)
    cage = patient.cage_width * (1 - (1 - level) ** 3.4) ** 0.5 + np.float32(1e-3)
    off_centre = (np.abs(x) - 0.27) / 0.42
    right_is_higher = 0.03 * np.tanh(x / 0.1)
    diaphragm = patient.diaphragm + breath + right_is_higher - patient.dome * (1 - off_centre**2)
    return ChestCoordinates(x, y, np.sign(x), cage, np.abs(x) / cage, diaphragm)


def lungs(patient: Patient, at: ChestCoordinates) -> Array:
    """The air along the beam, 0 (none) to 1, float32 [H, W]."""
    inside = step((at.cage - np.abs(at.x)) / 0.022) * step((at.y - patient.apex) / 0.02)
    beside = step((np.abs(at.x + 0.01) - 0.6 * patient.mediastinum) / 0.03)
    above = step((at.diaphragm - at.y) / 0.016)
    chord = np.sqrt(np.clip(1.12 - at.lateral**2, 0, 1))
    behind_diaphragm = 0.25 * step((at.diaphragm + 0.12 - at.y) / 0.05) * (1 - above)
    free = 1 - 0.7 * _heart(patient, at)
    return inside * beside * (above + behind_diaphragm) * (0.35 + 0.65 * chord) * free


def healthy_chest(patient: Patient, at: ChestCoordinates, air: Array) -> Array:
    """Attenuation without disease, float32 [H, W]; 0 outside the body."""
    body, arms = _soft_tissue(patient, at)
    bone = _ribs(patient, at) + _spine(patient, at) + _clavicles(patient, at) + arms
    middle = np.maximum(_heart(patient, at), _mediastinum(patient, at))
    belly = step((at.y - at.diaphragm) / 0.014) * np.clip(1.05 - at.lateral**2 * 0.75, 0, 1)
    attenuation = body + bone * np.clip(body * 1.6, 0, 1) + 0.50 * belly * body
    attenuation += 0.50 * middle * (1 - 0.85 * belly)
    attenuation -= 0.95 * air * np.clip(body, 0, 1)
    attenuation += _vessels(patient, at) * air - _airway(patient, at)
    return attenuation - _gas_bubble(patient, at)


def step(v: Array) -> Array:
    """A soft edge: 0 far below zero, 1 far above, float32 like `v`."""
    return 0.5 + 0.5 * np.tanh(v)


def bump(v: Array) -> Array:
    """A soft spot: exp(-v^2)."""
    return np.exp(-(v * v))


def plateau(v: Array) -> Array:
    """A spot with a flat top: exp(-v^4). It squares twice, because NumPy's `**4` is ten times slower."""
    square = v * v
    return np.exp(-(square * square))


def texture(seed: int, at_rows: Array, at_columns: Array, smooth: float) -> Array:
    """Smooth noise of standard deviation 1; a seed gives the same noise at the same coordinates.

    `at_rows` and `at_columns` are texture coordinates, which wrap at 1; `smooth` is the grain in texels. The
    interpolation is written out: it is five times faster than map_coordinates.
    """
    noise = np.random.default_rng([13, seed]).standard_normal((TEXTURE_SIZE, TEXTURE_SIZE), dtype=np.float32)
    noise = gaussian_filter(noise, smooth, mode="wrap", truncate=2.5)
    noise /= noise.std()
    row, column = at_rows * np.float32(TEXTURE_SIZE), at_columns * np.float32(TEXTURE_SIZE)
    top, left = np.floor(row), np.floor(column)
    down, right = row - top, column - left
    mask = TEXTURE_SIZE - 1
    r0, c0 = top.astype(np.int32) & mask, left.astype(np.int32) & mask
    r1, c1 = (r0 + 1) & mask, (c0 + 1) & mask
    flat = noise.ravel()
    upper = flat[r0 * TEXTURE_SIZE + c0] * (1 - right) + flat[r0 * TEXTURE_SIZE + c1] * right
    lower = flat[r1 * TEXTURE_SIZE + c0] * (1 - right) + flat[r1 * TEXTURE_SIZE + c1] * right
    return upper * (1 - down) + lower * down


def branches(seed: int, at: ChestCoordinates, density: float) -> Array:
    """Lines that fan out of both hila, 0 to 1: vessels in a healthy lung, bronchi in a filled one."""
    dx = np.abs(at.x) - 0.13
    dy = at.y + 0.02
    radius = np.sqrt(dx * dx + dy * dy) + 0.05
    angle = np.arctan2(dy, dx)
    fan = texture(seed, angle * density + at.side * 0.31, np.log(radius) * 0.16, 1.6)
    lines: Array = np.clip(1 - np.abs(fan) * 1.5, 0, 1)
    return lines * bump(radius / 0.55)


def _soft_tissue(patient: Patient, at: ChestCoordinates) -> tuple[Array, Array]:
    """Muscle and skin of trunk and arms, and the bone of the arms."""
    across = np.abs(at.x)
    half_width = patient.cage_width + patient.wall + 0.10 * bump((at.y + 0.45) / 0.25)
    shoulder = -0.84 + 0.34 * np.clip(across - 0.22, 0, 2) ** 1.2 - 0.9 * step((0.2 - across) / 0.03)
    chord = np.sqrt(np.clip(1 - (across / (half_width + 0.02)) ** 2, 0, 1))
    trunk = step((half_width - across) / 0.02) * step((at.y - shoulder) / 0.03) * (0.45 + 0.55 * chord)
    flesh, bone = trunk, np.zeros_like(trunk)
    for sign, angle in zip((-1, 1), patient.arm_angle, strict=True):
        along, aside = _limb(
            at, sign * (half_width.mean() - 0.02), -0.58, sign * np.cos(angle), np.sin(angle)
        )
        upper_arm = step((0.13 - np.abs(aside)) / 0.015) * step((along + 0.03) / 0.05)
        flesh = np.maximum(flesh, upper_arm * (0.30 + 0.25 * bump(aside / 0.1)))
        humerus = plateau(aside / 0.042) * step((along - 0.02) / 0.02)
        bone = bone + 0.34 * humerus * (0.6 + 0.4 * np.clip(np.abs(aside) / 0.04, 0, 1))
    return flesh, bone


def _limb(at: ChestCoordinates, x0: float, y0: float, ux: float, uy: float) -> tuple[Array, Array]:
    dx, dy = at.x - np.float32(x0), at.y - np.float32(y0)
    return dx * np.float32(ux) + dy * np.float32(uy), dy * np.float32(ux) - dx * np.float32(uy)


def _ribs(patient: Patient, at: ChestCoordinates) -> Array:
    """Posterior ribs, which leave the spine and bend down, and fainter anterior ribs going the other way."""
    lateral = np.clip(at.lateral, 0, 1.1)
    in_cage = step((at.cage + 0.012 - np.abs(at.x)) / 0.012) * step((at.y - patient.apex + 0.03) / 0.02)
    arch = patient.rib_slope * (lateral**2.4) * 1.4 - 0.10 * np.sin(lateral * 2.2)
    posterior = _bars((at.y - patient.apex - arch) / patient.rib_spacing)
    posterior *= step((lateral - 0.14) / 0.06)
    fall = (0.16 + 0.9 * patient.rib_slope) * np.clip(1 - lateral, 0, 1)
    anterior = _bars((at.y - patient.apex - fall - 0.06) / (patient.rib_spacing * 1.12))
    anterior *= step((lateral - 0.62) / 0.10) * step((0.42 - at.y) / 0.1)
    tangential = 0.55 + 0.75 * (lateral * lateral) ** 2
    fade = 0.35 + 0.65 * step((at.diaphragm + 0.05 - at.y) / 0.05)
    cage_edge = 0.10 * bump((at.cage - np.abs(at.x)) / 0.014)
    return patient.rib_density * in_cage * fade * tangential * (posterior + 0.4 * anterior) + cage_edge * fade


def _bars(phase: Array) -> Array:
    """Ribs as bars around whole-numbered phases, brighter along their cortex."""
    off = np.abs(phase - np.rint(phase))
    return 0.7 * step((0.24 - off) / 0.06) + 0.4 * bump((off - 0.22) / 0.05)


def _spine(patient: Patient, at: ChestCoordinates) -> Array:
    off = at.x - patient.spine_bend * np.sin(at.y * 2.5)
    body = plateau(off / 0.085)
    phase = at.y / (0.82 * patient.rib_spacing)
    disc = bump((phase - np.rint(phase)) / 0.13)
    pedicles = bump((np.abs(off) - 0.052) / 0.014) * bump((np.abs(phase - np.rint(phase)) - 0.45) / 0.2)
    process = bump(off / 0.013) * bump((np.abs(phase - np.rint(phase)) - 0.4) / 0.2)
    return body * (0.19 - 0.08 * disc) + 0.06 * pedicles + 0.07 * process


def _clavicles(patient: Patient, at: ChestCoordinates) -> Array:
    across = np.abs(at.x)
    centre = patient.apex + 0.10 - 0.20 * (across - 0.10) - 0.05 * np.sin((across - 0.1) * 9)
    ends = step((across - 0.10) / 0.015) * step((0.60 - across) / 0.03)
    off = (at.y - centre) / 0.026
    scapula = (
        bump((across - 0.66 - 0.25 * (at.y + 0.5)) / 0.035)
        * step((at.y + 0.62) / 0.06)
        * step((0.0 - at.y) / 0.1)
    )
    return ends * (0.20 * plateau(off) + 0.08 * bump((np.abs(off) - 0.9) / 0.3)) + 0.10 * scapula


def _heart(patient: Patient, at: ChestCoordinates) -> Array:
    tilt_x = at.x - patient.heart_shift - 0.30 * (at.y - 0.12)
    left = 1 - (tilt_x / patient.heart_width) ** 2 - ((at.y - 0.13) / 0.33) ** 2
    right = 1 - ((at.x + 0.07) / 0.17) ** 2 - ((at.y - 0.15) / 0.26) ** 2
    return np.maximum(step(left / 0.28), 0.9 * step(right / 0.35))


def _mediastinum(patient: Patient, at: ChestCoordinates) -> Array:
    knob = 0.05 * bump((at.y + 0.24) / 0.07) * step(at.x / 0.03)
    width = 0.78 * patient.mediastinum + 0.03 * bump((at.y + 0.02) / 0.15) + knob
    return 0.8 * step((width - np.abs(at.x - 0.012)) / 0.03)


def _vessels(patient: Patient, at: ChestCoordinates) -> Array:
    hilum = bump((np.abs(at.x) - 0.17) / 0.07) * bump((at.y + 0.01) / 0.13)
    return patient.vessels * (0.24 * branches(patient.texture_seed, at, 0.30) + 0.13 * hilum)


def _airway(patient: Patient, at: ChestCoordinates) -> Array:
    trachea = bump((at.x + 0.005) / 0.034) * step((-0.22 - at.y) / 0.03)
    bronchi = (
        bump((np.abs(at.x) - 0.6 * (at.y + 0.22)) / 0.022)
        * step((at.y + 0.23) / 0.02)
        * step((-0.05 - at.y) / 0.04)
    )
    return 0.13 * trachea + 0.08 * bronchi


def _gas_bubble(patient: Patient, at: ChestCoordinates) -> Array:
    """Air in the stomach, under the left dome; in about half of the patients."""
    size = max(patient.gas_bubble - 0.45, 0.0)
    inside = 1 - ((at.x - 0.30) / 0.14) ** 2 - ((at.y - at.diaphragm - 0.12) / 0.075) ** 2
    return np.float32(0.5 * size) * step(inside / 0.25) if size else np.zeros_like(at.x)
