"""What varies between patients, and between two radiographs of one patient, in centimetres of an adult chest.

Origin: midline, at the lung apices; x grows towards the image's right (the patient's left), y downwards. A child's
chest is drawn at adult scale with a child's proportions.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Anatomy:
    """One patient on one film. Lengths in cm of an adult-sized chest, angles in degrees.

    `heart`, `aorta`, `vessels`, `bone` are factors of 1; `fat` is the thickness of the chest wall; `breast` 0 to 1.
    """

    half_width: float  # inner rib cage at its widest
    depth: float  # of the body, front to back
    right_dome: float  # y of the right hemidiaphragm's top
    dome_step: float  # how much lower the left one stands
    dome_height: float  # top to costophrenic angle
    rib_slope: float  # how far a rib falls from back to front
    heart: float
    heart_shift: float
    aorta: float
    vessels: float
    bone: float
    fat: float
    breast: float
    arms_out: float
    clavicle_y: float
    scoliosis: float
    gas: float  # radius of the stomach bubble
    tree_seed: int  # of the vessel tree, so that follow-ups share it


def draw_adult(rng: np.random.Generator, sex: str) -> Anatomy:
    """A patient of the given sex, `M` or `F`."""
    female = sex == "F"
    return Anatomy(
        half_width=float(np.clip(rng.normal(13.2 if female else 14.3, 0.6), 11.8, 15.8)),
        depth=rng.uniform(18, 24),
        right_dome=float(np.clip(rng.normal(22.3, 1.1), 19.5, 24.8)),
        dome_step=rng.uniform(0.4, 1.6),
        dome_height=rng.uniform(3.2, 5.2),
        rib_slope=rng.uniform(9.0, 12.5),
        heart=float(np.clip(rng.normal(1.0, 0.08), 0.82, 1.2)),
        heart_shift=rng.normal(0, 0.25),
        aorta=rng.uniform(0.8, 1.3),
        vessels=rng.uniform(0.75, 1.25),
        bone=rng.uniform(0.75, 1.2),
        fat=rng.uniform(1.6, 3.6),
        breast=rng.uniform(0.3, 1.0) if female else 0.0,
        arms_out=rng.uniform(0, 1),
        clavicle_y=rng.normal(1.2, 0.7),
        scoliosis=rng.normal(0, 0.35),
        gas=rng.uniform(0.8, 2.6),
        tree_seed=int(rng.integers(2**31)),
    )


def draw_child(rng: np.random.Generator) -> Anatomy:
    """A child of one to five years: a rounder chest, flatter ribs, a wider heart, higher domes."""
    return replace(
        draw_adult(rng, "M"),
        half_width=float(np.clip(rng.normal(13.6, 0.8), 11.8, 15.4)),
        depth=rng.uniform(17, 21),
        right_dome=float(np.clip(rng.normal(19.8, 1.1), 17.4, 22.2)),
        dome_height=rng.uniform(2.6, 4.0),
        rib_slope=rng.uniform(6.0, 9.0),
        heart=float(np.clip(rng.normal(1.14, 0.08), 0.98, 1.3)),
        aorta=rng.uniform(0.3, 0.6),
        fat=rng.uniform(1.0, 2.0),
        clavicle_y=rng.normal(0.2, 0.7),
        gas=rng.uniform(1.0, 3.2),
    )


def reposition(anatomy: Anatomy, rng: np.random.Generator, spread: float) -> Anatomy:
    """The same patient on another film: another breath and another stance. `spread` 0 (none) to 1."""
    breath = rng.normal(0, 0.6) * spread
    return replace(
        anatomy,
        right_dome=anatomy.right_dome + breath,
        half_width=anatomy.half_width + 0.15 * breath,
        heart=anatomy.heart * (1 - 0.03 * breath),
        heart_shift=anatomy.heart_shift + rng.normal(0, 0.4) * spread,
        clavicle_y=anatomy.clavicle_y + rng.normal(0, 0.5) * spread,
        arms_out=float(np.clip(anatomy.arms_out + rng.normal(0, 0.3) * spread, 0, 1)),
        gas=max(0.4, anatomy.gas + rng.normal(0, 0.8) * spread),
    )
