"""How far off a registration may be, as draws from the distribution of its error around one lesion.

A spline through noisy images is known where tissue has texture and only carried on where it has none: through the
ablation zone, a homogeneous organ, beyond the scan. The draws follow the Laplace approximation of that: the information
each sample gives along its gray-value gradient, against a prior of smooth deformation whose strength, like all numbers
here, was set on made patients with known deformation (docs/decisions/0047-the-registrations-own-error.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, ndimage

from pipeline.both_ways import BothWays
from pipeline.geometry import FloatArray, Geometry
from pipeline.sampling import Box, Field, extent_of, lattice_in, spline_bases, spline_grid
from pipeline.transform import Transform
from pipeline.volume import Volume
from pipeline.where import Images, Where, images_for

DRAWS = 256
REACH_MM = 35.0  # of the lesion's surroundings that hold it in place
CONTROL_MM = 14.0  # or more, so that there are no more control points than `MOST_CONTROLS`
MOST_CONTROLS = 1800
SAMPLE_MM = 3.0
IMAGE_MM = 1.5
#: What one sample of noise fills: what Gaussian smoothing by 1.5 mm makes of white noise, (2 sqrt(pi) 1.5 mm)^3. The
#: scans' own smoothing varies; `SCALE` was set with this.
NOISE_VOLUME_MM3 = 150.0
APART_SAMPLE_MM = 8.0
#: Strength of the prior, per mm: times the integral of the squared second derivatives of the displacement.
STIFFNESS = 4.0
#: Per mm^2: where neither image nor prior hold anything, the error is some 100 mm, which is refused.
RIDGE = 1e-4
#: The Laplace approximation, and half of what lies between both ways, times these; and what neither can see.
SCALE, APART_SCALE, FLOOR_MM = 0.7, 1.9, 0.15
#: Scans that agree less than their noise explains differ in ways that the model does not know: the draws times the
#: agreement to minus this power. Set on 16 made patients from easy to hopeless.
DOUBT = 2.5
LEAST_AGREEMENT_COUNTED = 0.1  # so that the factor stays finite; far below what is accepted
_BINS = 40
_UNSHIFTED = torch.zeros(3, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class RegistrationErrors:
    """Draws of the error. coefficients_mm: (draws, 3, k, j, i), LPS components, of splines on the control points."""

    coefficients_mm: FloatArray
    grid: Geometry

    def at(self, points_lps_mm: FloatArray) -> FloatArray:
        """(draws, n, 3) displacement errors in mm at (n, 3) points of the follow-up's frame."""
        basis = _basis(points_lps_mm, self.grid)
        flat = self.coefficients_mm.reshape(len(self.coefficients_mm), 3, -1)
        return np.asarray(np.moveaxis(flat @ basis.T, 1, 2))

    def expected_mm(self, points_lps_mm: FloatArray) -> FloatArray:
        """(n,) root mean square error expected at (n, 3) points."""
        return np.asarray(np.sqrt((self.at(points_lps_mm) ** 2).sum(-1).mean(0)))

    def doubted(self, agreement: float) -> RegistrationErrors:
        """The draws made larger where the scans agree less around the lesion (see `DOUBT`); agreement: up to 1."""
        factor = np.fmax(agreement, LEAST_AGREEMENT_COUNTED) ** -DOUBT
        return RegistrationErrors(factor * self.coefficients_mm, self.grid)


def registration_errors(
    followup: Volume,
    baseline: Volume,
    ways: BothWays,
    *,
    where: Where,
    around: Box,
) -> RegistrationErrors:
    """Draws of the error of `ways.joined` near one lesion; the same for the same input.

    where: with the follow-up fixed. around: the tumor and, where there is one, its simulated zone, in the follow-up's
    frame.
    """
    box = around.grown(REACH_MM).meet(extent_of(followup.geometry))
    joined = ways.joined
    looked = replace(where, box=box, near=())
    images = images_for(followup, baseline, joined, looked, image_mm=IMAGE_MM, device=torch.device("cpu"))
    grid = _control_grid(box, joined.from_frame_uid)
    precision = _information(images, joined, box, grid)
    count = int(np.prod(grid.shape))
    bending = STIFFNESS * _bending(grid) + RIDGE * np.eye(count)
    for a in range(3):
        precision[a * count : (a + 1) * count, a * count : (a + 1) * count] += bending
    factor = linalg.cholesky(precision.T, lower=True, overwrite_a=True, check_finite=False)
    rng = np.random.default_rng(0)
    drawn = linalg.solve_triangular(
        factor, rng.standard_normal((3 * count, DRAWS)), lower=True, trans="T", check_finite=False
    )
    coefficients = SCALE * drawn.T.reshape(DRAWS, 3, *grid.shape)
    shift_mm = np.hypot(APART_SCALE * _apart_mm(images, ways, box) / 2, FLOOR_MM) / np.sqrt(3)
    # The weights of a spline add up to one: the same value at all control points is a shift.
    coefficients += shift_mm * rng.standard_normal((DRAWS, 3, 1, 1, 1))
    return RegistrationErrors(coefficients, grid)


def _control_grid(box: Box, frame_uid: str) -> Geometry:
    """Control points over the box, sparser over a large one: time and memory grow with the cube of their number."""
    spacing = CONTROL_MM
    while np.prod((grid := spline_grid(box, spacing, frame_uid)).shape) > MOST_CONTROLS:
        spacing *= 1.1
    return grid


def _apart_mm(images: Images, ways: BothWays, box: Box) -> float:
    """Root mean square distance between both ways, all over the box where the images count; inside the cuts it would
    be one vector, here it is many, of one and the same distribution."""
    lattice = lattice_in(box, APART_SAMPLE_MM)
    points = lattice.points(_UNSHIFTED).numpy()
    weight = _at(images.fixed_weight, points) * _at(images.moving_weight, ways.joined(points))
    points = points[weight > 0.5] if (weight > 0.5).any() else points
    return float(np.sqrt((ways.apart_mm(points) ** 2).sum(1).mean()))


def _information(images: Images, transform: Transform, box: Box, grid: Geometry) -> FloatArray:
    """(3 n, 3 n) what the samples tell of the n control points' three displacements.

    One sample tells (gradient of the follow-up's gray value as the baseline predicts it)^2 over the variance of what is
    left: the mean of the follow-up's values given the baseline's stands for the prediction, whatever the modality.
    """
    lattice = lattice_in(box, SAMPLE_MM)
    points = lattice.points(_UNSHIFTED).numpy()
    partners = transform(points)
    weight = _at(images.fixed_weight, points) * _at(images.moving_weight, partners)
    fixed, moving = _at(images.fixed, points), _at(images.moving, partners)
    used = weight > 0.5
    if used.sum() < 100:
        return np.zeros((3 * int(np.prod(grid.shape)),) * 2)
    places, predicted, variance = _prediction(fixed[used], moving[used])
    gradient = np.empty((len(points), 3))
    for a in range(3):
        step = IMAGE_MM * np.eye(3)[a]
        ahead, behind = (_at(images.moving, transform(points + s * step)) for s in (1, -1))
        gradient[:, a] = np.interp(ahead, places, predicted) - np.interp(behind, places, predicted)
    gradient /= 2 * IMAGE_MM
    scale = SAMPLE_MM**3 / NOISE_VOLUME_MM3 / variance
    basis = [b.numpy() for b in spline_bases(lattice.axes(_UNSHIFTED), grid)]
    pairs = [np.einsum("pi,pj->pij", b, b).reshape(len(b), -1) for b in basis]
    counts = [b.shape[1] for b in basis]
    n = int(np.prod(counts))
    out = np.zeros((3 * n, 3 * n))
    for a in range(3):
        for b in range(a, 3):
            told = (scale * weight * gradient[:, a] * gradient[:, b]).reshape(lattice.counts[::-1])
            told = np.einsum("zyx,xi->zyi", told, pairs[0])
            told = np.einsum("zyi,yj->zji", told, pairs[1])
            told = np.einsum("zji,zk->kji", told, pairs[2])
            split = told.reshape(*(m for c in counts[::-1] for m in (c, c))).transpose(0, 2, 4, 1, 3, 5)
            block = split.reshape(n, n)
            out[a * n : (a + 1) * n, b * n : (b + 1) * n] = block
            out[b * n : (b + 1) * n, a * n : (a + 1) * n] = block
    return out


def _prediction(fixed: NDArray[np.float32], moving: NDArray[np.float32]) -> tuple[FloatArray, FloatArray, float]:
    """What the moving values, from 0 to 1, say of the fixed ones beside them: both (n,).

    Returns (bins,) moving values, (bins,) the mean of the fixed ones there, and the variance about it.
    """
    places = (np.arange(_BINS) + 0.5) / _BINS
    bins = np.clip((moving * _BINS).astype(int), 0, _BINS - 1)
    count = ndimage.gaussian_filter1d(np.bincount(bins, minlength=_BINS).astype(float), 1.0)
    total = ndimage.gaussian_filter1d(np.bincount(bins, fixed, _BINS), 1.0)
    seen = count > 1e-3  # what no sample has is taken from its neighbors
    predicted = np.interp(places, places[seen], total[seen] / count[seen])
    variance = float(np.mean((fixed - np.interp(moving, places, predicted)) ** 2))
    return places, predicted, max(variance, 1e-6)


def _bending(grid: Geometry) -> FloatArray:
    """(n, n) quadratic form of the control values: about the integral of the squared second derivatives."""
    out = np.zeros((int(np.prod(grid.shape)),) * 2)
    for times, orders in (
        (1, (2, 0, 0)),
        (1, (0, 2, 0)),
        (1, (0, 0, 2)),
        (2, (1, 1, 0)),
        (2, (1, 0, 1)),
        (2, (0, 1, 1)),
    ):
        squares = []
        for count, order in zip(grid.shape, orders, strict=True):
            difference = np.diff(np.eye(count), order, axis=0) if order else np.eye(count)
            squares.append(difference.T @ difference)
        out += times * np.kron(np.kron(squares[0], squares[1]), squares[2])
    return out / float(grid.spacing_mm[0])


def _basis(points_lps_mm: FloatArray, grid: Geometry) -> FloatArray:
    """(n, control points) spline weights at (n, 3) points."""
    columns = [torch.from_numpy(np.ascontiguousarray(points_lps_mm[:, a])) for a in range(3)]
    x, y, z = (b.numpy() for b in spline_bases(columns, grid))
    return np.asarray(np.einsum("pk,pj,pi->pkji", z, y, x).reshape(len(points_lps_mm), -1))


def _at(field: Field, points: FloatArray) -> NDArray[np.float32]:
    return np.asarray(field.at(torch.from_numpy(points).float()).numpy())
