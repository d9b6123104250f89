"""A frontal chest radiograph as a sum of tissue along each ray: air, soft tissue and bone, in cm of water.

Everything is drawn on one canvas in the frame of `cxr.demo.anatomy`, X rays are absorbed and scattered, and
`cxr.demo.film` makes a picture of what is left. A cartoon: right in its parts, their places and their proportions.
"""

from typing import NamedTuple

import cv2
import numpy as np

from cxr.demo.anatomy import Anatomy

SCALE = 12  # pixels per cm
LEFT, TOP, RIGHT, BOTTOM = -22.0, -9.0, 22.0, 33.0  # of the canvas, in cm
X = np.arange(LEFT, RIGHT, 1 / SCALE, dtype=np.float32)[None, :]
Y = np.arange(TOP, BOTTOM, 1 / SCALE, dtype=np.float32)[:, None]
SHAPE = (Y.size, X.size)
SPINE = slice(int((-4 - LEFT) * SCALE), int((4 - LEFT) * SCALE))  # its columns
SIDES = (-1, 1)  # the patient's right, on the image's left; and left
WATER_PER_CM = 0.13  # attenuation at chest energies, beam hardening included
LUNG_DENSITY = 0.22


class Chest(NamedTuple):
    """Canvas-sized float32 maps of one patient.

    `body`, `lung`, `bone`, `vessels`: cm along the ray. `mask` 0 to 1 inside the lungs. `depth_in_lung` 0 at the
    mediastinum to 1 at the chest wall; `height_in_lung` 0 at the apex to 1 at the dome.
    """

    body: np.ndarray
    lung: np.ndarray
    mask: np.ndarray
    bone: np.ndarray
    vessels: np.ndarray
    depth_in_lung: np.ndarray
    height_in_lung: np.ndarray


def build_chest(anatomy: Anatomy) -> Chest:
    """The healthy chest of one patient."""
    wall = _chest_wall(anatomy)
    middle = _mediastinum(anatomy)
    dome = _diaphragm(anatomy)
    border = np.where(X < 0, middle[0], middle[1])
    mask = _edge(wall - np.abs(X), 0.25) * _edge(np.abs(X) - border, 0.3) * _edge(dome - Y, 0.3)
    width = np.maximum(wall - border, 1)
    depth_in_lung = np.clip((np.abs(X) - border) / width, 0, 1)
    height_in_lung = np.clip(Y / dome, 0, 1)
    return Chest(
        body=_body(anatomy) - _gas(anatomy, dome) - _airway(anatomy),
        lung=_lung(anatomy, wall, border, dome),
        mask=mask,
        bone=_bones(anatomy, wall),
        vessels=_vessels(anatomy) * anatomy.vessels,
        depth_in_lung=depth_in_lung,
        height_in_lung=height_in_lung,
    )


def expose(chest: Chest, opacity: np.ndarray, scatter: float) -> np.ndarray:
    """The film's optical signal, float32 (height, width): the thicker the tissue, the larger.

    `opacity` is the share of air that disease has replaced, 0 to 1; `scatter` the share of scattered rays.
    """
    air = chest.lung * (1 - LUNG_DENSITY) * (1 - opacity)
    tissue = chest.body - air + chest.vessels * chest.mask * (1 - 0.8 * opacity) + chest.bone
    rays = np.exp(-WATER_PER_CM * np.maximum(tissue, 0))
    low = cv2.GaussianBlur(cv2.resize(rays, None, fx=1 / 12, fy=1 / 12, interpolation=cv2.INTER_AREA), (0, 0), 3)
    return -np.log(rays * (1 - scatter) + cv2.resize(low, SHAPE[::-1]) * scatter)


def _edge(distance: np.ndarray, width: float) -> np.ndarray:
    """1 inside, 0 outside, a ramp of `width` cm between."""
    return np.clip(distance / width + 0.5, 0, 1)


def _bump(y: np.ndarray, centre: float, half: float) -> np.ndarray:
    """A half-ellipse of height 1 over centre +- half."""
    return np.sqrt(np.clip(1 - ((y - centre) / half) ** 2, 0, 1))


def _oval(across: np.ndarray) -> np.ndarray:
    """Thickness of a rounded box by the distance from its middle, both as shares of their half: 1 to 0."""
    return np.sqrt(np.clip(1 - across * across * np.sqrt(across), 0, 1))


def _chest_wall(anatomy: Anatomy) -> np.ndarray:
    """Half-width of the inner rib cage by row, (rows, 1)."""
    up = np.clip(1 - Y / (anatomy.right_dome * 0.92), 0, 1)
    return anatomy.half_width * np.clip(1 - up**3, 0, 1) ** 0.5 * (1 - 0.004 * np.maximum(Y - 24, 0))


def _midline(anatomy: Anatomy) -> np.ndarray:
    return anatomy.scoliosis * np.sin((Y + 2) / 7)


def _mediastinum(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Right and left border by row: great vessels, aortic knob, pulmonary trunk, atrium and ventricle."""
    foot = anatomy.right_dome + 1.5
    heart, knob = anatomy.heart, anatomy.aorta
    vena_cava = 2.4 + 0.6 * _bump(Y, 5, 7)
    atrium = (4.0 * heart - 0.6 * anatomy.heart_shift) * _bump(Y, foot - 6.2, 7.0)
    right = np.maximum(vena_cava, atrium) + _midline(anatomy) * -0.5
    great_vessels = 2.3 + 0.4 * _bump(Y, 3, 6)
    arch = 2.0 + 1.7 * knob * _bump(Y, 7.4, 2.0)
    trunk = 3.4 * _bump(Y, 11.3, 3.2)
    ventricle = (8.6 * heart + anatomy.heart_shift) * np.sin(
        np.clip((Y - 8.5) / (foot - 10.5), 0, 1) * np.pi / 2
    ) ** 1.25
    ventricle *= np.clip(1 - ((Y - (foot - 2.2)) / 3.6).clip(0) ** 2, 0, 1) ** 0.5
    left = np.maximum.reduce([great_vessels, arch, trunk, ventricle]) + _midline(anatomy) * 0.5
    return _smooth(right), _smooth(left)


def _smooth(profile: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(np.ascontiguousarray(profile, np.float32), (1, 0), sigmaX=0.1, sigmaY=0.45 * SCALE)


def _diaphragm(anatomy: Anatomy) -> np.ndarray:
    """y of the diaphragm by column, (1, columns): two domes, steep towards the costophrenic angles."""
    from_top = np.abs(np.abs(X) - 0.43 * anatomy.half_width) / (0.6 * anatomy.half_width)
    fall = anatomy.dome_height * np.where(np.abs(X) > 0.43 * anatomy.half_width, from_top**2.4, 0.6 * from_top**2)
    return (anatomy.right_dome + fall + np.where(X > 0, anatomy.dome_step, 0)).astype(np.float32)


def _lung(anatomy: Anatomy, wall: np.ndarray, border: np.ndarray, dome: np.ndarray) -> np.ndarray:
    """Air-filled lung along the ray: an ellipse front to back, less the heart before it, less what the dome hides."""
    across = np.abs(X) / np.maximum(wall, 0.1)
    thinner = 0.55 + 0.45 * np.sin(np.clip(Y / 13, 0, 1) * np.pi / 2)  # towards the apex
    lung = 0.74 * anatomy.depth * thinner * _oval(across)
    inside = np.clip(1 - np.abs(X) / border, 0, 1)
    heart = _edge(border - np.abs(X), 0.4) * (0.55 + 0.45 * np.minimum(inside * 2.2, 1) ** 0.5)
    below = Y - dome
    recess = _edge(-below, 0.3) + (1 - _edge(-below, 0.3)) * 0.24 * np.clip(1 - below / 5, 0, 1)
    return lung * (1 - heart) * recess


def _body(anatomy: Anatomy) -> np.ndarray:
    """Torso, shoulders, arms and neck."""
    half = (anatomy.half_width + 0.7 + anatomy.fat) * (1 - 0.05 * _bump(Y, 27, 7))
    half = half * (0.6 + 0.4 * np.sin(_edge(Y - 3, 12) * np.pi / 2))
    torso = anatomy.depth * _oval(np.abs(X) / half)
    torso = torso * np.sin(_edge(Y - 2, 13) * np.pi / 2)
    neck = 0.6 * anatomy.depth * np.sqrt(np.clip(1 - (X / (5.2 + 0.16 * (Y + 5).clip(0) ** 2)) ** 2, 0, 1))
    neck = neck * np.clip(1 - (Y - 1) / 6, 0, 1)
    body = np.maximum(np.maximum(torso, neck), _shoulders(anatomy))
    if anatomy.breast:
        body = body + _breasts(anatomy)
    return body


def _shoulders(anatomy: Anatomy) -> np.ndarray:
    out = 3.5 * anatomy.arms_out
    fat = 0.5 * anatomy.fat
    mask = np.zeros((SHAPE[0] // 4, SHAPE[1] // 4), np.uint8)
    outline = [(0, -6), (5.2, -5.4), (9, -3 - fat), (14, -1.8 - fat), (18.5, -0.8 - fat), (21, 1.4), (22 + out, 6)]
    inner = [(25 + 2 * out, 34), (18.5 + 2 * out, 34), (18.2 + out, 16), (anatomy.half_width + 1.6 + fat, 9), (0, 12)]
    for side in SIDES:
        cv2.fillPoly(mask, [_points([(side * x, y) for x, y in outline + inner], SCALE / 4)], 255, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2.2) / 255
    return cv2.resize(np.sqrt(soft), SHAPE[::-1]) * 0.62 * anatomy.depth


def _breasts(anatomy: Anatomy) -> np.ndarray:
    radius = 4.5 + 2 * anatomy.breast
    centre = (0.55 * anatomy.half_width, anatomy.right_dome - 1.5)
    squared = ((np.abs(X) - centre[0]) / (radius * 1.1)) ** 2 + ((Y - centre[1]) / radius) ** 2
    hang = np.clip(0.5 + 0.12 * (Y - centre[1]), 0, 1)  # a sharp lower fold, no upper border
    return 3.2 * anatomy.breast * np.sqrt(np.clip(1 - squared, 0, 1)) * hang


def _gas(anatomy: Anatomy, dome: np.ndarray) -> np.ndarray:
    """The stomach's bubble under the left dome, flat below as the patient stands; and some colon."""
    top = anatomy.right_dome + anatomy.dome_step
    rng = np.random.default_rng(anatomy.tree_seed)
    gas = np.zeros(SHAPE, np.float32)
    under = int((anatomy.right_dome - TOP) * SCALE)  # no gas above
    blobs = [(6.2, top + 0.8 + anatomy.gas * 0.7, 1.6 * anatomy.gas, 0.8 * anatomy.gas)]
    blobs += [(x, top + rng.uniform(4, 8), 1.5, 1.1) for x in rng.uniform(-9, 10, 3)]
    for x, y, rx, ry in blobs:
        squared = ((X - x) / rx) ** 2 + ((Y[under:] - y) / ry) ** 2
        np.maximum(gas[under:], np.sqrt(np.clip(1 - squared, 0, 1)) * 3.5, out=gas[under:])
    gas[under:] *= _edge(Y[under:] - dome - 0.5, 0.3)
    return gas


def _airway(anatomy: Anatomy) -> np.ndarray:
    """Trachea and main bronchi."""
    air = np.zeros(SHAPE, np.uint8)
    _stroke(air, [(0.1, -9), (-0.1, 0), (-0.5, 5), (-0.4, 9.6)], 1.7, 255)
    _stroke(air, [(-0.4, 9.4), (-1.8, 11), (-3.4, 12.6)], 1.2, 220)
    _stroke(air, [(-0.4, 9.4), (1.4, 10.6), (3.8, 11.9)], 1.0, 220)
    return cv2.GaussianBlur(air.astype(np.float32), (0, 0), 0.25 * SCALE) * (2.6 / 255)


def _bones(anatomy: Anatomy, wall: np.ndarray) -> np.ndarray:
    bone = _ribs(anatomy, wall) + _girdle(anatomy)
    bone = cv2.GaussianBlur(bone, (0, 0), 1.0)
    return anatomy.bone * (bone + _spine(anatomy))


def _ribs(anatomy: Anatomy, wall: np.ndarray) -> np.ndarray:
    """Ten pairs, each a tilted loop seen from the front: the back half flat, the front half falling to its end."""
    posterior, anterior = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    turn = np.linspace(0, 2.45, 30)  # radians from the spine round the side to the cartilage
    step = (anatomy.right_dome + 0.5) / 10
    jitter = np.random.default_rng(anatomy.tree_seed).normal(0, 0.12, 11)
    loops = []
    for number in range(11):
        start = 0.6 + step * number + jitter[number]
        slope = anatomy.rib_slope * min(1, 0.55 + 0.09 * number)
        y = start + slope * (1 - np.cos(turn)) / 2 - min(0.8, 0.15 + 0.2 * number) * np.sin(2 * turn).clip(0)
        reach = float(np.interp(start + slope / 2, Y[:, 0], wall[:, 0])) + 0.3
        x = 1.3 + (max(reach, 5.4) - 1.3) * np.sin(turn) ** 0.9
        loops += [np.stack([side * x, y], 1) for side in SIDES]
    back = turn <= 1.65
    front = turn >= 1.5
    for width, value in ((1.25, 165), (0.75, 115)):  # cortex, then the marrow within it
        for canvas, part, wider in ((posterior, back, 1.0), (anterior, front, 1.1)):
            lines = [_points(loop[part]) for loop in loops]
            cv2.polylines(canvas, lines, False, value, round(width * wider * SCALE), cv2.LINE_8, 4)
    weight = np.float32(2.6 / 255)
    cartilage = np.clip((np.abs(X) / np.maximum(wall, 1) - 0.4) / 0.5, 0, 1)  # casts no shadow
    return (posterior.astype(np.float32) + 0.8 * cartilage * anterior.astype(np.float32)) * weight


def _girdle(anatomy: Anatomy) -> np.ndarray:
    """Clavicles, scapulae and upper arms."""
    bone = np.zeros(SHAPE, np.uint8)
    flat = np.zeros(SHAPE, np.uint8)
    out, cy = 1.5 * anatomy.arms_out, anatomy.clavicle_y
    for side in SIDES:
        blade = [(side * (x + out), y) for x, y in ((11.6, 2.0), (12.8, 12.5), (14.0, 12.0), (17.0, 4.5), (15.5, 1.0))]
        cv2.fillPoly(flat, [_points(blade)], 90, cv2.LINE_AA, 4)
        _stroke(flat, blade[1:4], 0.4, 130)
        _stroke(flat, [blade[0], (side * (15 + out), 1.6), (side * (18.4 + out), 0.6)], 0.8, 150)
        arm = [(side * (19.2 + out), 3.6), (side * (20.4 + 2 * out), 9), (side * (21.5 + 3 * out), 34)]
        for width, value in ((2.6, 210), (1.7, 120)):
            _stroke(bone, arm, width, value)
        cv2.circle(bone, _point(arm[0]), int(2.5 * SCALE * 16), 180, -1, cv2.LINE_AA, 4)
        collar = [(side * x, cy + y) for x, y in ((1.9, 2.7), (4.5, 2.2), (8.5, 0.7), (12.5, -0.3), (17, -0.7))]
        for width, value in ((1.5, 215), (0.8, 145)):
            _stroke(bone, collar, width, value)
    return (bone.astype(np.float32) * 1.5 + flat.astype(np.float32)) * np.float32(2.2 / 255)


def _spine(anatomy: Anatomy) -> np.ndarray:
    """Vertebral bodies with their discs, pedicles and spinous processes."""
    x = X - _midline(anatomy)
    x = x[:, SPINE]
    half = 1.35 + 0.016 * (Y - TOP)
    phase = ((Y - TOP) / (1.75 + 0.016 * (Y - TOP))) % 1  # vertebrae grow downwards
    body = _edge(0.41 - np.abs(phase - 0.5), 0.1)
    plate = np.exp(-(((np.abs(phase - 0.5) - 0.38) / 0.05) ** 2))
    column = _edge(half - np.abs(x), 0.35) * (0.6 + 0.8 * body + 0.5 * plate)
    pedicle = np.exp(-(((np.abs(x) - 0.62 * half) / 0.35) ** 2) - ((phase - 0.4) / 0.2) ** 2)
    process = np.exp(-((x / 0.3) ** 2) - ((phase - 0.75) / 0.22) ** 2)
    spine = np.zeros(SHAPE, np.float32)
    spine[:, SPINE] = column + 0.8 * pedicle + 0.9 * process
    return spine


class Tree(NamedTuple):
    """Vessel branches: (n, 5, 2) points in cm and (n,) widths in cm."""

    lines: np.ndarray
    widths: np.ndarray


def grow_tree(seed: int) -> Tree:
    """Vessels from both hila outwards, each generation thinner, shorter and twice as many."""
    rng = np.random.default_rng(seed)
    lines, widths = [], []
    for side, (hx, hy) in zip(SIDES, ((-2.9, 12.2), (3.1, 11.4)), strict=True):
        angle = np.radians([-78, -52, -25, 5, 30, 48, 63, 76, 88]) + rng.normal(0, 0.1, 9)
        start = np.tile([hx, hy], (9, 1)) + rng.normal(0, 0.35, (9, 2))
        width = rng.uniform(0.5, 0.75, 9)
        length = rng.uniform(2.2, 3.6, 9)
        for _ in range(6):
            branch, end, angle = _grow(rng, start, angle, length, side)
            lines.append(branch)
            widths.append(width)
            start = np.repeat(end, 2, 0)
            fork = rng.uniform(0.12, 0.5, angle.size)
            angle = np.repeat(angle, 2) + np.stack([fork, -fork * rng.uniform(0.5, 1.2, fork.size)], 1).ravel()
            width = np.repeat(width, 2) * rng.uniform(0.55, 0.85, start.shape[0])
            length = np.repeat(length, 2) * rng.uniform(0.6, 1.05, start.shape[0])
    return Tree(np.concatenate(lines), np.concatenate(widths))


def _grow(rng, start, angle, length, side) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One generation: branches (n, 5, 2), their ends (n, 2) and their last angles (n,)."""
    bend = rng.normal(0, 0.25, angle.size)
    along = np.linspace(0, 1, 5)
    heading = angle[:, None] + bend[:, None] * along
    steps = length[:, None] / 4 * np.stack([side * np.cos(heading), np.sin(heading)])
    path = start[:, None, :] + np.moveaxis(np.cumsum(steps, 2) - steps[:, :, :1], 0, 2)
    return path, path[:, -1], heading[:, -1]


def _vessels(anatomy: Anatomy) -> np.ndarray:
    """Soft tissue of hila and vessels along the ray."""
    tree = grow_tree(anatomy.tree_seed)
    canvas = draw_tree(tree, 1.0)
    hila = np.zeros((SHAPE[0] // 4, SHAPE[1] // 4), np.float32)
    for x, y in ((-3.6, 12.4), (3.8, 11.6)):
        centre = ((x - LEFT) * SCALE / 4, (y - TOP) * SCALE / 4)
        cv2.ellipse(hila, (centre, (1.8 * SCALE / 4, 4.2 * SCALE / 4), 8.0 * np.sign(x)), 1.0, -1)
    return 2.2 * canvas + 1.1 * cv2.resize(cv2.GaussianBlur(hila, (0, 0), 2.5), SHAPE[::-1])


def draw_tree(tree: Tree, thicker: float) -> np.ndarray:
    """Float32 canvas, 0 to 1: wide branches thick along the ray too."""
    canvas = np.zeros(SHAPE, np.uint8)
    pixels = np.maximum(tree.widths * SCALE * thicker, 1).round().astype(int)
    shades = np.clip(40 + 215 * tree.widths / 0.7, 0, 255).round(-1)
    for width in np.unique(pixels):
        same = pixels == width
        shade = float(shades[same].mean())
        cv2.polylines(canvas, list(_points(tree.lines[same])), False, shade, int(width), cv2.LINE_8, 4)
    return cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), 1.1) / 255


def _points(points, scale: float = SCALE) -> np.ndarray:
    """Centimetres to OpenCV's fixed-point pixels with 4 fractional bits; any leading shape."""
    pixels = (np.asarray(points, np.float64) - (LEFT, TOP)) * scale * 16
    return pixels.round().astype(np.int32)


def _point(point: tuple[float, float]) -> tuple[int, int]:
    x, y = _points(point)
    return int(x), int(y)


def _stroke(canvas: np.ndarray, points, width: float, value: float) -> None:
    """A smooth line of `width` cm through `points`, drawn over what is there."""
    cv2.polylines(canvas, [_points(_rounded(points))], False, value, max(1, round(width * SCALE)), cv2.LINE_AA, 4)


def _rounded(points) -> np.ndarray:
    """Corners cut twice (Chaikin), ends kept."""
    path = np.asarray(points, np.float64)
    if len(path) > 8:
        return path
    for _ in range(2):
        cut = np.empty((2 * len(path), 2))
        cut[0], cut[-1] = path[0], path[-1]
        cut[1:-1:2] = 0.75 * path[:-1] + 0.25 * path[1:]
        cut[2:-1:2] = 0.25 * path[:-1] + 0.75 * path[1:]
        path = cut
    return path
