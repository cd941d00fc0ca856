"""The opacities of pneumonia in a synthetic chest: lobar consolidation or a diffuse interstitial pattern."""

import numpy as np

from pneumonia_core.findings import BACTERIAL, VIRAL
from pneumonia_core.phantoms.anatomy import Array, ChestCoordinates, branches, bump, step, texture

# Side (-1: right lung), centre (|x|, y) and half axes of a consolidated lobe in a frontal view.
LOBES = (
    (-1, 0.33, -0.38, 0.24, 0.20),  # right upper
    (-1, 0.28, 0.10, 0.22, 0.14),  # right middle
    (-1, 0.38, 0.20, 0.24, 0.20),  # right lower
    (1, 0.33, -0.36, 0.24, 0.22),  # left upper
    (1, 0.42, 0.16, 0.20, 0.22),  # left lower
)


def disease(label: int, patient_seed: int, course: float, at: ChestCoordinates, air: Array) -> Array:
    """Attenuation that the disease of class `label` adds, float32 [H, W]; zeros for normal.

    The pattern belongs to the patient, `course` (about 0.8 to 1.1) to the day of the image.
    """
    rng = np.random.default_rng([17, label, patient_seed])
    if label == BACTERIAL:
        return course * _consolidations(rng, at, air)
    if label == VIRAL:
        return course * _interstitial(rng, at, air)
    return np.zeros_like(air)


def _consolidations(rng: np.random.Generator, at: ChestCoordinates, air: Array) -> Array:
    """One or two lobes filled with fluid, whose bronchi still hold air (air bronchogram)."""
    lobes = rng.choice(len(LOBES), size=1 if rng.random() < 0.65 else 2, replace=False)
    seed = int(rng.integers(1 << 32))
    wobble = texture(seed, at.y * 0.5, at.x * 0.5, 4.6)
    mottle = texture(seed + 1, at.y * 0.5, at.x * 0.5, 1.5)
    filled = np.zeros_like(air)
    for lobe in lobes:
        side, cx, cy, rx, ry = LOBES[lobe]
        scale = rng.uniform(0.75, 1.15)
        cx, cy = cx + rng.normal(0, 0.04), cy + rng.normal(0, 0.04)
        reach = ((side * at.x - cx) / (rx * scale)) ** 2 + ((at.y - cy) / (ry * scale)) ** 2
        edge = step((1 - np.sqrt(reach) + 0.22 * wobble) / rng.uniform(0.14, 0.30))
        filled = np.maximum(filled, rng.uniform(0.60, 0.95) * edge)
    bronchogram = branches(seed + 2, at, 0.42)
    return air * filled * np.clip(0.80 + 0.10 * mottle - 0.45 * bronchogram, 0.1, 1.1)


def _interstitial(rng: np.random.Generator, at: ChestCoordinates, air: Array) -> Array:
    """Thickened septa and bronchial walls in both lungs: a net of lines, densest around the hila."""
    seed = int(rng.integers(1 << 32))
    coarse = texture(seed, at.y * 0.5, at.x * 0.5, rng.uniform(1.5, 2.1))
    fine = texture(seed + 1, at.y * 0.5, at.x * 0.5, 1.0)
    net = 0.7 * np.clip(1 - np.abs(coarse) * 1.1, 0, 1) + 0.6 * np.clip(1 - np.abs(fine) * 1.1, 0, 1)
    patchy = np.clip(0.8 + 0.35 * texture(seed + 2, at.y * 0.5, at.x * 0.5, 9.0), 0.2, 1.5)
    central = 0.45 + 0.75 * bump((np.abs(at.x) - 0.2) / 0.28) * bump((at.y - 0.02) / 0.42)
    cuffs = branches(seed + 3, at, 0.5)
    return air * patchy * central * rng.uniform(0.85, 1.35) * (0.26 * net + 0.26 * cuffs + 0.03)
