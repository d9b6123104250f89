"""Pictures that are no upright frontal chest radiograph, made for fitting `cxr.pixels.content`.

What can be made from frontal films is made from them: turned, inverted, cut, taken to pieces. Laterals and CT slices
come from a chest measured by CT, bent to other shapes, and from one rough body drawn in three dimensions, seen from the
side or cut; neither shares its anatomy with `cxr.demo`, so that the demo's laterals and slices remain a test. Every
function draws one picture, uint8 (height, width).
"""

import gzip
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from cxr.demo import marks
from cxr.demo.texture import clouds, grain

WATER_PER_CM = 0.13  # attenuation at chest energies
VOXEL_CM = 0.28
Film = np.ndarray


def vary_film(film: Film, rng: np.random.Generator) -> Film:
    """A frontal film as other sources may send it: turned and cut a little, flat, dark or bright, written upon."""
    film = cv2.resize(film, (160, 160), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        film = film[:, ::-1]  # a heart on the wrong side is not for this check to find
    turn = cv2.getRotationMatrix2D((80, 80), rng.normal(0, 5), 1)
    turn = np.diag(rng.uniform(0.85, 1.3, 2)) @ turn  # thumbs are stretched, and children's films cut close
    turn[:, 2] += (80, 80) - turn @ (80, 80, 1) + rng.normal(0, 6, 2)
    film = cv2.warpAffine(film, turn, (160, 160), borderMode=cv2.BORDER_REPLICATE if rng.random() < 0.7 else 0)
    film = change_greys(film, rng)
    if rng.random() < 0.35:
        add = rng.integers(5)
        if add == 0:
            marks.draw_arrows(film, rng)
        elif add == 1:
            marks.mark_panel(film, rng)
        elif add == 2:
            marks.mark_portable(film, rng)
        elif add == 3:
            film = cover_edges(film, rng)
        else:
            film = marks.add_border(film, rng)
    return film


def change_greys(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another gamma, black, white, and noise."""
    grey = (picture / 255.0) ** np.exp(rng.normal(0, 0.35))
    if rng.random() < 0.5:
        black = rng.uniform(0, 0.5) * rng.random()
        grey = black + grey * (1 - black) * rng.uniform(0.25 if rng.random() < 0.3 else 0.7, 1.0)
    grey = grey * 255 + grain(rng, picture.shape[:2]) * rng.uniform(0, 6)
    return np.clip(grey, 0, 255).astype(np.uint8)


def cover_edges(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shutters or a scanner's glass: black or white bars over up to a sixth of some sides."""
    covered = picture.copy()
    grey = 0 if rng.random() < 0.6 else 255
    for turns in range(4):
        if rng.random() < 0.5:
            side = np.rot90(covered, turns)
            side[: int(rng.uniform(0, 0.17) * len(side))] = grey
    return covered


def invert(film: Film, rng: np.random.Generator) -> np.ndarray:
    return 255 - vary_film(film, rng)


def turn_over(film: Film, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(vary_film(film, rng)[::-1])  # left and right are mirrored by `vary_film`


def turn_aside(film: Film, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(vary_film(film, rng), rng.choice((1, 3))))


def draw_part(film: Film, rng: np.random.Generator) -> np.ndarray:
    """A piece of a film, half a film, a film in disorder, an abdomen or a limb: anything but a whole chest."""
    film = vary_film(film, rng)
    kind = rng.random()
    if kind < 0.35:
        height, width = rng.uniform(0.15, 0.45, 2) * 160
        top, left = rng.uniform(0, 160 - height), rng.uniform(0, 160 - width)
        return film[int(top) : int(top + height), int(left) : int(left + width)]
    if kind < 0.55:
        half = film[:, :75] if rng.random() < 0.5 else film[:, 85:]
        return half if rng.random() < 0.5 else half[:, ::-1]
    if kind < 0.75:
        n, m = rng.integers(2, 5, 2)
        pieces = [piece for row in np.array_split(film, n) for piece in np.array_split(row, m, axis=1)]
        pieces = [cv2.resize(pieces[i], (40, 40)) for i in rng.permutation(n * m)]
        return np.vstack([np.hstack(pieces[k : k + m]) for k in range(0, n * m, m)])
    return draw_limbs(rng) if kind < 0.85 else draw_abdomen(rng)


def draw_abdomen(rng: np.random.Generator) -> np.ndarray:
    """The drawn body's shadow from the front, below the diaphragm, with the wings of the pelvis perhaps."""
    x = np.linspace(-rng.uniform(14, 20), rng.uniform(14, 20), 112)[None, None, :]
    y = np.arange(-15, 15, 1.2)[:, None, None]
    top = rng.uniform(29, 34)
    z = np.linspace(top, top + rng.uniform(16, 28), 128)[None, :, None]
    along = (draw_body(rng)(x, y, z).sum(axis=0) * 1.2).astype(np.float32)
    if rng.random() < 0.7:
        wings = np.zeros_like(along)
        height, lean, size = rng.uniform(90, 125), rng.uniform(20, 45), rng.uniform(16, 24)
        for side in (-1, 1):
            middle = (56 + side * rng.uniform(24, 30), height)
            cv2.ellipse(wings, (middle, (size, 2 * size), side * lean), 1.0, -1, cv2.LINE_AA)
        along += rng.uniform(1, 3) * cv2.GaussianBlur(wings, (0, 0), rng.uniform(1, 3))
    return show_shadow(along, rng)


def draw_limbs(rng: np.random.Generator) -> np.ndarray:
    """Long bones in soft tissue on black: an arm, a leg, the fingers of a hand."""
    signal = np.zeros((160, 160), np.float32)
    n = int(rng.choice((1, 1, 2, 4, 5)))
    angle = rng.uniform(-0.4, 0.4)
    for k in range(n):
        middle = np.array([160 * (k + 0.5) / n + rng.normal(0, 4), 80.0])
        along = np.array([np.sin(angle + rng.normal(0, 0.1)), np.cos(angle)])
        width = 160 / n * rng.uniform(0.25, 0.8)
        ends = [(middle + side * along * rng.uniform(60, 140)).astype(int).tolist() for side in (-1, 1)]
        for share, strength in ((1.0, 1.0), (rng.uniform(0.3, 0.5), rng.uniform(0.6, 1.2))):
            line = np.zeros_like(signal)
            cv2.line(line, *ends, strength, max(2, int(width * share)), cv2.LINE_AA)
            signal += cv2.GaussianBlur(line, (0, 0), 1 + width * share / 12)
        joint = (middle + along * rng.uniform(-50, 50)).astype(int).tolist()
        cv2.circle(signal, joint, max(2, int(width * 0.3)), float(rng.uniform(1.2, 2.4)), -1, cv2.LINE_AA)
    signal = cv2.GaussianBlur(signal, (0, 0), rng.uniform(0.7, 2))
    return change_greys(np.clip(signal / signal.max() * 250, 0, 255).astype(np.uint8), rng)


def draw_body(rng: np.random.Generator) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Attenuation relative to water at x (right to left), y (front to back) and z (downwards), in cm, of one person."""
    half, depth = rng.uniform(14, 20), rng.uniform(9, 14)
    dome = rng.uniform(22, 27)
    apex = rng.uniform(4, 7)
    heart, shift = rng.uniform(4.8, 7.2), rng.uniform(1.5, 4.0)
    spine_y = depth * rng.uniform(0.5, 0.65)
    curve, rib_slope, rib_step = rng.uniform(-1.0, 4.5), rng.uniform(0.4, 0.9), rng.uniform(2.2, 2.9)
    breast, bone, rib = rng.uniform(0, 1.0) * (rng.random() < 0.4), rng.uniform(0.6, 1.5), rng.uniform(0.15, 0.7)
    arms_up, arm_y, consolidation = rng.random() < 0.85, rng.uniform(-5, 5), rng.uniform(0, 0.6)
    gas = [(rng.uniform(-10, 10), rng.uniform(-7, 3), dome + rng.uniform(5, 16), rng.uniform(1, 3)) for _ in range(5)]

    def at(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        bend = curve * np.sin((z - 6) / 10)
        y = y - bend
        narrow = np.clip((z + 1) / 9, 0.35, 1.0)
        wide, deep = half * narrow, depth * np.clip(0.75 + z / 60, 0.7, 1.05) * np.clip((z + 4) / 9, 0.6, 1)
        body = (np.abs(x / wide) ** 2.4 + np.abs(y / deep) ** 2.4) < 1
        if breast:
            body |= ((np.abs(x) - 8) / 6) ** 2 + ((y + deep) / (5 * breast)) ** 2 + ((z - 18) / 6) ** 2 < 1
        arm_z = -2.0 if arms_up else 14.0
        arm = ((np.abs(x) - half + 1) / 4.5) ** 2 + ((y - arm_y) / 6.5) ** 2
        arm = arm + ((z - arm_z) / (12 if arms_up else 22)) ** 2 < 1
        cage = np.sqrt((x / (wide * 0.86)) ** 2 + (y / (deep * 0.86)) ** 2)
        rise = np.clip((z - apex) / 14, 0, 1) ** 0.5
        lung = (cage < rise) & (np.abs(x) > 2.2 + 1.2 * np.clip((z - 12) / 10, 0, 1)) & (z > apex)
        diaphragm = dome - 2.5 + 6 * ((np.abs(x) - 7) / 8) ** 2 + 0.45 * np.abs(y + 2) * (0.4 + 0.6 * (y > -2))
        lung &= z < diaphragm
        from_heart = ((x - shift) / heart) ** 2 + ((y + 3.5) / (heart * 0.85)) ** 2
        lung &= from_heart + ((z - dome + 4) / (heart * 1.1)) ** 2 > 1
        lung &= (x / 3.2) ** 2 + ((y - spine_y) / 3.4) ** 2 > 1
        density = body * 1.0 + arm * ~body * 0.95
        density = np.where(body & ~lung & (np.abs(y) > deep * 0.86), 0.92, density)  # fat under the skin
        density = np.where(lung, 0.22, density)
        for gx, gy, gz, radius in gas:
            density = np.where((x - gx) ** 2 + (y - gy) ** 2 + (z - gz) ** 2 < radius**2, 0.02, density)
        trachea = ((x / 0.9) ** 2 + ((y - 0.5 - z * 0.1) / 0.9) ** 2 < 1) & (z < apex + 8)
        density = np.where(trachea & body, 0.02, density)
        ribs = (cage > 0.97) & (cage < 1.05) & (((z + rib_slope * y) / rib_step) % 1 < 0.38) & (z > apex - 1)
        ribs &= (z < dome + 8) & body
        vertebra = (x / 2.1) ** 2 + ((y - spine_y) / 1.7) ** 2 < 1
        process = (np.abs(x) < 0.6) & (y > spine_y + 2.6) & (y < spine_y + 4.8)
        disc = ((z + 0.1 * y) / 2.6) % 1 < 0.2
        canal = (x / 1.0) ** 2 + ((y - spine_y - 2.3) / 0.8) ** 2 < 1
        sternum = (np.abs(x) < 1.8) & (y < -deep * 0.84) & (y > -deep * 0.93) & (z > apex + 1) & (z < apex + 17)
        hard = ribs * rib + sternum * 0.8 + vertebra * np.where(disc, 0.1, 0.6) + process * ~disc * 0.6
        density = density + bone * hard * ~canal
        return density + consolidation * 0.2 * lung * (z > dome - 8)

    return at


def draw_lateral(_: Film, rng: np.random.Generator) -> np.ndarray:
    """The drawn body's shadow from the side."""
    x = np.arange(-24, 24, 1.2)[:, None, None]
    middle, reach = rng.normal(0, 1.5), rng.uniform(12, 18)
    y = np.linspace(middle - reach, middle + reach, 112)[None, None, :]
    z = np.linspace(rng.uniform(-3, 6), rng.uniform(28, 40), 128)[None, :, None]
    along = draw_body(rng)(x, y, z).sum(0) * 1.2
    return show_shadow(along.astype(np.float32), rng)


def project_volume(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The shadow from the side of a chest measured by CT, float32 as `read_volume` gives it."""
    depth, width = volume.shape[1:]
    turn = cv2.getRotationMatrix2D((width / 2, depth / 2), rng.normal(0, 7), 1)
    lung = rng.uniform(0.8, 2.2)  # breathed out, or ill
    bone = rng.uniform(0.7, 1.8)
    turned = np.stack([cv2.warpAffine(plane, turn, (width, depth)) for plane in volume])
    turned = np.where(turned < 0.6, turned * lung, turned)
    turned = np.where(turned > 1.12, 1.12 + (turned - 1.12) * bone, turned)
    along = turned.sum(axis=2) * VOXEL_CM
    top, bottom = int(rng.uniform(0, 0.2) * len(along)), int(rng.uniform(0.82, 1) * len(along))
    front, back = int(rng.uniform(0.1, 0.24) * depth), int(rng.uniform(0.8, 0.95) * depth)
    return show_shadow(bend(along[top:bottom, front:back], rng), rng)


def show_shadow(along: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A film of what the rays met, float32 (height, width) in cm of water."""
    along = cv2.resize(along, (112, 128))
    along = cv2.GaussianBlur(along, (0, 0), rng.uniform(0.4, 1.0))
    along += rng.uniform(0, 0.7) * clouds(rng, along.shape, int(rng.integers(4, 12))) * (along > 2)
    rays = np.exp(-WATER_PER_CM * along)
    scatter = rng.uniform(0.02, 0.25)
    signal = -np.log(rays * (1 - scatter) + cv2.GaussianBlur(rays, (0, 0), 12) * scatter)
    low, high = np.percentile(signal[20:100, 25:90], (1, 97))
    grey = 1 / (1 + np.exp(rng.uniform(3, 7) * (rng.uniform(0.35, 0.65) - (signal - low) / (high - low))))
    picture = np.clip((grey - grey.min()) * 255 / (grey.max() - grey.min()), 0, 255).astype(np.uint8)
    turn = cv2.getRotationMatrix2D((56, 64), rng.normal(0, 4), rng.uniform(1, 1.1))
    picture = cv2.warpAffine(picture, turn, picture.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    picture = change_greys(cv2.resize(picture, (224, 256)), rng)
    picture = cover_edges(picture, rng) if rng.random() < 0.25 else picture
    if rng.random() < 0.4:
        marks.mark_side(picture, "L", rng)
    return picture if rng.random() < 0.5 else np.ascontiguousarray(picture[:, ::-1])


def draw_ct(_: Film, rng: np.random.Generator) -> np.ndarray:
    """An axial slice of the drawn body in a lung, a soft-tissue or a bone window; seldom a coronal or sagittal one."""
    field = rng.uniform(14, 24)
    plane = rng.random()
    u = np.linspace(-field, field, 128)
    if plane < 0.85:
        v = np.linspace(-field * rng.uniform(0.65, 1), field * rng.uniform(0.65, 1), 112)
        density = draw_body(rng)(u[None, :], v[:, None], np.full((1, 1), rng.uniform(2, 38)))
        if rng.random() < 0.6:
            bed = v[:, None] - rng.uniform(11, 17) + rng.uniform(0, 0.02) * u[None, :] ** 2
            density = np.where(np.abs(bed) < rng.uniform(0.3, 1), rng.uniform(0.1, 0.9), density)
    else:
        v = np.linspace(-2, rng.uniform(36, 46), 112)
        across, still = (u[None, :], np.full((1, 1), rng.uniform(-6, 9)))
        body = draw_body(rng)
        density = body(across, still, v[:, None]) if plane < 0.93 else body(still, across, v[:, None])
    return show_slice(density.astype(np.float32), rng)


def cut_volume(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slice of a chest measured by CT, mostly axial; float32 as `read_volume` gives it."""
    plane = rng.random()
    if plane < 0.6:
        cut = volume[rng.integers(len(volume))]
    elif plane < 0.9:
        cut = volume[:, int(rng.uniform(0.3, 0.72) * volume.shape[1])]
    else:
        cut = volume[:, :, int(rng.uniform(0.2, 0.8) * volume.shape[2])]
    top, left, bottom, right = (rng.uniform(0, 0.16, 4) * np.tile(cut.shape, 2)).astype(int)
    cut = cut[top : cut.shape[0] - bottom, left : cut.shape[1] - right]
    cut = cut if rng.random() < 0.8 else cut[:, ::-1]
    return show_slice(bend(cv2.resize(cut, (128, 112)), rng), rng)


def show_slice(density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slice as it is shown, of its density relative to water, float32 (112, 128)."""
    density = cv2.GaussianBlur(density, (0, 0), rng.uniform(0.3, 0.9))
    lung = (density > 0.1) & (density < 0.5)
    density += lung * 0.25 * np.clip(clouds(rng, density.shape, int(rng.integers(2, 6))) - 0.8, 0, 3)
    density += lung * rng.uniform(0, 0.6) * (clouds(rng, density.shape, 20) > 1)  # haze of a pneumonia
    level, width = ((0.4, 1.5), (1.04, 0.4), (1.3, 1.8), (0.8, 2.2))[rng.choice(4, p=(0.55, 0.25, 0.1, 0.1))]
    level, width = level * rng.uniform(0.8, 1.2), width * rng.uniform(0.6, 1.3)
    grey = np.clip((density - level) / width + 0.5, 0, 1) * 250 + grain(rng, density.shape) * rng.uniform(0, 12)
    picture = np.clip(grey, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:  # the round field of the scanner
        y, x = np.mgrid[-1:1:112j, -1:1:128j]
        picture[x**2 + y**2 > 1] = 0
    if rng.random() < 0.4:
        for _line in range(3):
            marks.write(picture, "WL -600 R", rng.uniform(0, 0.7), rng.uniform(0.05, 1), 0.04, 230)
    if rng.random() < 0.2:
        marks.draw_arrows(picture, rng)
    return marks.add_border(picture, rng) if rng.random() < 0.3 else picture


def bend(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another person's shape: float32 (height, width) pushed smoothly by up to some tenths of a side."""
    height, width = picture.shape
    push = rng.normal(0, rng.uniform(0, 0.05), (3, 3, 2)).astype(np.float32)
    push = cv2.resize(push, (width, height), interpolation=cv2.INTER_CUBIC) * (width, height)
    at = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2) + push
    return cv2.remap(picture, at.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def read_volume(path: Path) -> np.ndarray:
    """Density relative to water of a chest CT in NIfTI-1, float32 (rows down, front to back, right to left)."""
    raw = gzip.decompress(path.read_bytes())
    size, kind = np.frombuffer(raw, "<i2", 3, 42), np.frombuffer(raw, "<i2", 1, 70).item()
    offset, slope, intercept = np.frombuffer(raw, "<f4", 3, 108).tolist()
    stored = np.frombuffer(raw, {4: "<i2", 16: "<f4"}[kind], offset=int(offset)).reshape(size[::-1])
    planes = stored[::-1, ::-1].astype(np.float32)
    small = [cv2.resize(plane, (128, 128), interpolation=cv2.INTER_AREA) for plane in planes]
    return np.clip((np.stack(small) * slope + intercept) / 1000 + 1, 0, 3)


def draw_nothing(_: Film, rng: np.random.Generator) -> np.ndarray:
    """One grey, a gradient, an exposed field without anybody, noise; a letter upon it perhaps."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j].astype(np.float32)
    level = rng.choice((0.0, 255.0, rng.uniform(0, 255)))
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 110) * (rng.random() < 0.5)
    grey = level + slope * (x * np.cos(angle) + y * np.sin(angle))
    if rng.random() < 0.4:
        grey += rng.uniform(-120, 120) * np.exp(-((x - rng.normal(0, 0.4)) ** 2 + (y - rng.normal(0, 0.4)) ** 2) * 2)
    if rng.random() < 0.3:
        left, right, top, bottom = rng.uniform(0.3, 1, 4)
        grey = np.where((x > -left) & (x < right) & (y > -top) & (y < bottom), grey, 255.0 * rng.integers(2))
    if rng.random() < 0.6:
        grey += grain(rng, x.shape) * rng.uniform(0, 40)
    if rng.random() < 0.3:
        grey += clouds(rng, x.shape, int(rng.integers(8, 40))) * rng.uniform(0, 25)
    picture = np.clip(grey, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        marks.mark_side(picture, "LR"[rng.integers(2)], rng)
    return picture


def draw_screen(film: Film, rng: np.random.Generator) -> np.ndarray:
    """A page, a program's window, a diagram, or several films beside one another."""
    kind = rng.random()
    height, width = int(rng.integers(240, 400)), int(rng.integers(240, 440))
    paper, ink = (255, 0) if rng.random() < 0.65 else (int(rng.integers(0, 50)), int(rng.integers(150, 256)))
    page = np.full((height, width), paper, np.uint8)
    if kind < 0.2:  # two to nine films
        rows, columns = ((1, 2), (2, 1), (2, 2), (2, 3), (3, 3), (1, 3))[rng.integers(6)]
        tiles = [cv2.resize(vary_film(film, rng), (90, 90)) for _ in range(rows * columns)]
        tiles = [cv2.copyMakeBorder(tile, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=paper) for tile in tiles]
        return np.vstack([np.hstack(tiles[r * columns : (r + 1) * columns]) for r in range(rows)])
    write_blocks(page, ink, rng)
    if kind < 0.45:
        for _ in range(rng.integers(1, 4)):
            plot_curve(page, ink, rng)
    if kind > 0.75:  # one film, small in the page
        side = int(min(height, width) * rng.uniform(0.25, 0.5))
        top, left = int(rng.integers(0, height - side)), int(rng.integers(0, width - side))
        page[top : top + side, left : left + side] = cv2.resize(vary_film(film, rng), (side, side))
    return page


def write_blocks(page: np.ndarray, ink: int, rng: np.random.Generator) -> None:
    """Bars, boxes, and lines of words."""
    height, width = page.shape
    for _ in range(rng.integers(0, 5)):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        grey = int(rng.integers(0, 256))
        far = (x + int(rng.integers(10, width)), y + int(rng.integers(6, height // 3)))
        cv2.rectangle(page, (x, y), far, grey, -1 if rng.random() < 0.6 else 1)
    size = rng.uniform(0.2, 0.9)
    step = int(28 * size) + int(rng.integers(1, 8))
    left = int(rng.uniform(0, 0.3) * width)
    for y in range(int(rng.uniform(0, 0.5) * height), height, step):
        if rng.random() < 0.85:
            words = " ".join("x" * int(n) for n in rng.integers(1, 10, rng.integers(1, 14)))
            shuffled = "".join(rng.choice(list("aeginorstmlT"), len(words)))
            line = "".join(c if w != " " else " " for c, w in zip(shuffled, words, strict=True))
            cv2.putText(page, line, (left, y), marks.FONT, size, ink, max(1, round(size * 2)), cv2.LINE_AA)


def plot_curve(page: np.ndarray, ink: int, rng: np.random.Generator) -> None:
    """Axes with a curve, points or columns."""
    height, width = page.shape
    x0, x1 = sorted(rng.uniform(0.05, 0.95, 2) * width)
    y0, y1 = sorted(rng.uniform(0.05, 0.95, 2) * height)
    cv2.rectangle(page, (int(x0), int(y0)), (int(x1), int(y1)), ink, 1)
    x = np.linspace(x0, x1, 30)
    y = np.clip(y0 + (y1 - y0) * (0.5 + np.cumsum(rng.normal(0, 0.1, 30))), y0, y1)
    grey = int(rng.integers(0, 256))
    match rng.integers(3):
        case 0:
            line = np.stack([x, y], 1).astype(np.int32)
            cv2.polylines(page, [line], False, grey, int(rng.integers(1, 4)), cv2.LINE_AA)
        case 1:
            for at in zip(x.astype(int).tolist(), y.astype(int).tolist(), strict=True):
                cv2.circle(page, at, int(rng.integers(1, 5)), grey, -1, cv2.LINE_AA)
        case 2:
            for a, top in zip(x.astype(int)[::3].tolist(), y.astype(int)[::3].tolist(), strict=True):
                cv2.rectangle(page, (a, top), (a + max(2, int(x1 - x0) // 15), int(y1)), grey, -1)


def draw_photograph(_: Film, rng: np.random.Generator) -> np.ndarray:
    """Dead leaves: discs and boxes of every size before one another, shaded and grained.

    They have the statistics of natural pictures; Lee, Mumford and Huang (2001), doi:10.1023/A:1011109015675.
    """
    side = 128
    picture = np.full((side, side), rng.uniform(0, 255), np.float32)
    picture += clouds(rng, picture.shape, int(rng.integers(10, 60))) * rng.uniform(0, 40)
    if rng.random() < 0.4:  # sky over ground
        picture[int(rng.uniform(0.2, 0.8) * side) :] = rng.uniform(0, 255)
    texture = clouds(rng, (side, side), int(rng.integers(2, 8)))
    largest = rng.uniform(20, 80)
    for _leaf in range(int(np.exp(rng.uniform(1, 5)))):
        radius = min(largest, 3 / np.sqrt(rng.random() + 1e-3) * rng.uniform(1, 3))
        shape = np.zeros((side, side), np.float32)
        centre = rng.integers(0, side, 2).tolist()
        axes = [max(1, int(radius * rng.uniform(0.3, 1.5))), max(1, int(radius))]
        if rng.random() < 0.7:
            cv2.ellipse(shape, centre, axes, rng.uniform(0, 360), 0, 360, 1.0, -1, cv2.LINE_AA)
        else:
            corners = cv2.boxPoints((centre, axes, rng.uniform(-10, 10))).astype(np.int32)
            cv2.fillPoly(shape, [corners], 1.0, cv2.LINE_AA)
        leaf = rng.uniform(0, 255) + texture * rng.uniform(0, 25)
        picture += shape * (leaf - picture)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.5))
    return np.clip(picture + grain(rng, picture.shape) * rng.uniform(0, 8), 0, 255).astype(np.uint8)


def draw_drawing(_: Film, rng: np.random.Generator) -> np.ndarray:
    """Two or three greys: the mask of two lungs, of one organ, or a logo."""
    picture = np.full((160, 160), 0 if rng.random() < 0.8 else int(rng.integers(0, 256)), np.uint8)
    grey = 255 if rng.random() < 0.7 else int(rng.integers(30, 256))
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    lungs = rng.random() < 0.6
    for k in range(2 if lungs else int(rng.integers(1, 5))):
        wobble = sum(rng.normal(0, 0.12 / n) * np.cos(n * angle + rng.uniform(0, 6)) for n in range(1, 6))
        radius = (rng.uniform(20, 34), rng.uniform(40, 66)) if lungs else rng.uniform(8, 60, 2)
        centre = (80 + (2 * k - 1) * rng.uniform(34, 44), rng.uniform(70, 90)) if lungs else rng.uniform(30, 130, 2)
        outline = np.stack([np.cos(angle), np.sin(angle)], 1) * (1 + wobble)[:, None] * radius + centre
        cv2.fillPoly(picture, [outline.astype(np.int32)], grey)
        grey = grey if rng.random() < 0.8 else int(rng.integers(30, 256))
    if rng.random() < 0.2:
        marks.write(picture, "Lung"[: rng.integers(1, 5)], rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.9), 0.2, 128)
    return picture if rng.random() < 0.7 else cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 2))


DRAW: dict[str, Callable[[Film, np.random.Generator], np.ndarray]] = {
    "a lateral view": draw_lateral,
    "a CT slice": draw_ct,
    "inverted, bone dark": invert,
    "upside down": turn_over,
    "on its side": turn_aside,
    "blank": draw_nothing,
    "a page or a screenshot": draw_screen,
    "a photograph": draw_photograph,
    "a drawing or a mask": draw_drawing,
    "no whole chest": draw_part,
}
