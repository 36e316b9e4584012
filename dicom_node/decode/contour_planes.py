"""Outlines on parallel planes to a filled stack of slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Contours this close to a slice (in slices) are that slice's own.
_ON_SLICE = 0.1
#: Outlines this close to one another (in slices) certainly lie on one plane.
_NO_GAP = 0.01
#: Planes up to this many usual spacings apart follow one another; farther, some are missing between them.
_SPARSE = 1.5
#: Two missing planes, and what rounding adds.
_MISSING = 3.1
#: Pixels along a voxel where planes are interpolated; odd, so that one lies at its center.
_FINER = 3


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed polygon. points: (n, 3), LPS or index [k, j, i]; is_xor: what it encloses is exchanged with the rest."""

    points: NDArray[np.float64]
    is_xor: bool = False


def filled_stack(outlines: Sequence[Outline], shape: tuple[int, int, int], *, slab: float) -> NDArray[np.bool_]:
    """Boolean voxels ``[k, j, i]`` inside outlines that lie parallel to the slices, points given as indices.

    Between the planes of outlines the region is interpolated by distance in the plane. slab: how thick, in slices, a
    region drawn on a single plane is taken to be.
    """
    voxels = np.zeros(shape, bool)
    points = np.concatenate([outline.points for outline in outlines])[:, 1:]
    low = np.clip(np.floor(points.min(0)) - 1, 0, shape[1:]).astype(int)
    high = np.clip(np.ceil(points.max(0)) + 2, 0, shape[1:]).astype(int)
    if (high > low).all():
        grouped = _grouped(outlines)
        depths = sorted(grouped)
        all_slices = depths == [depths[0] + n for n in range(len(depths))] and depths[0] == round(depths[0])
        finer = 1 if all_slices else _FINER
        planes = {depth: _filled_plane(grouped[depth], low, high, finer) for depth in depths}
        voxels[:, low[0] : high[0], low[1] : high[1]] = _filled(planes, shape[0], slab, finer)
    return voxels


def _grouped(outlines: Sequence[Outline]) -> dict[float, list[Outline]]:
    """The outlines by the (fractional) slice that they lie on."""
    depths = np.array([outline.points[:, 0].mean() for outline in outlines])
    order = np.argsort(depths, kind="stable")
    gaps = np.diff(depths[order])
    apart = gaps[gaps > _NO_GAP]
    near = min(_ON_SLICE, 0.4 * float(np.percentile(apart, 90))) if len(apart) else _ON_SLICE
    groups: list[list[int]] = []
    for n in order.tolist():
        if groups and depths[n] - depths[groups[-1][0]] <= near:
            groups[-1].append(n)
        else:
            groups.append([n])
    grouped: dict[float, list[Outline]] = {}
    for group in groups:
        depth = float(depths[group].mean())
        depth = float(np.round(depth)) if abs(depth - np.round(depth)) <= near else depth
        grouped.setdefault(depth, []).extend(outlines[n] for n in group)
    return grouped


def _filled_plane(
    outlines: Sequence[Outline], low: NDArray[np.int_], high: NDArray[np.int_], finer: int
) -> NDArray[np.bool_]:
    """Pixels, of the box from low to high, whose centers lie in the region that the outlines of one plane enclose.

    An outline wholly inside another is a hole in it, one inside a hole is an island, and so on; outlines that overlap
    in part are a union. XOR outlines cancel out wherever they overlap. finer: pixels along each voxel.
    """
    size = finer * (high - low)
    result = np.zeros(size, bool)
    plain: list[NDArray[np.bool_]] = []
    crossing: list[NDArray[np.bool_]] = []
    for outline in outlines:
        inside = rastered((outline.points[:, 1:] - low + 0.5) * finer - 0.5, size)
        if outline.is_xor:
            crossing.append(inside)
        elif inside.any() and not any(np.array_equal(inside, other) for other in plain):
            plain.append(inside)
    plain.sort(key=lambda inside: -int(inside.sum()))
    for number, inside in enumerate(plain):
        around = sum(1 for larger in plain[:number] if not (inside & ~larger).any())
        result = result & ~inside if around % 2 else result | inside
    for inside in crossing:
        result ^= inside
    return result


def rastered(points: NDArray[np.float64], size: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Pixels of a box whose centers lie inside one polygon: with an odd number of its edges to their left.

    points: (n, 2) rows and columns; a center on an edge belongs to one side alone, so polygons side by side share none.
    """
    ends = np.roll(points, -1, axis=0)
    falls = (points[:, 0] > ends[:, 0])[:, None]
    top, bottom = np.where(falls, ends, points), np.where(falls, points, ends)
    first, stop = (np.clip(np.ceil(end[:, 0]), 0, size[0]).astype(int) for end in (top, bottom))
    counts = stop - first
    edge = np.repeat(np.arange(len(points)), counts)
    rows = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    slope = (bottom - top)[edge, 1] / (bottom - top)[edge, 0]
    columns = np.clip(np.ceil(top[edge, 1] + (rows - top[edge, 0]) * slope), 0, size[1]).astype(int)
    width = int(size[1]) + 1
    crossed = np.bincount(rows * width + columns, minlength=int(size[0]) * width).reshape(-1, width)
    return np.asarray(np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1)


def _filled(planes: dict[float, NDArray[np.bool_]], slices: int, slab: float, finer: int) -> NDArray[np.bool_]:
    """All slices of the box, at the centers of its voxels."""
    depths = np.array(sorted(planes))
    step = _step(depths, slab)
    centers = {depth: plane[finer // 2 :: finer, finer // 2 :: finer] for depth, plane in planes.items()}
    voxels = np.zeros((slices, *centers[float(depths[0])].shape), bool)
    for depth, plane in centers.items():
        # Each plane stands for a slab of half the spacing on either side, if that reaches any other slice at all.
        reach = 0.5 * step if step > 1 + _ON_SLICE or depth != round(depth) else 0.5
        for k in range(max(int(np.floor(depth - reach)) + 1, 0), min(int(np.ceil(depth + reach)), slices)):
            if not _is_between_near(k, depths, step) or k == depth:
                voxels[k] |= plane
    known: dict[float, NDArray[np.float64]] = {}
    for low, high in pairwise(depths.tolist()):
        first, last = max(int(np.floor(low)) + 1, 0), min(int(np.ceil(high)), slices)
        if last > first and high - low <= _MISSING * step:
            is_near = high - low <= _SPARSE * step
            if is_near:
                known = {end: known[end] if end in known else _distance(planes[end], finer) for end in (low, high)}
                between = [known[low], known[high]]
            else:
                between = [_distance(end, finer) for end in _meeting(planes[low], planes[high])]
            for k in range(first, last):
                weight = (k - low) / (high - low)
                voxels[k] |= (1 - weight) * between[0] + weight * between[1] > 0
    return voxels


def _step(depths: NDArray[np.float64], slab: float) -> float:
    """How far apart the planes usually are, in slices; the slab where they do not tell."""
    gaps = np.diff(depths)
    step = float(np.percentile(gaps, 50, method="lower")) if len(gaps) else slab
    return slab if len(gaps) == 1 and step > _MISSING * slab else step


def _is_between_near(k: int, depths: NDArray[np.float64], step: float) -> bool:
    """Whether the slice lies between two planes that are no farther apart than usual: it is interpolated alone."""
    above = int(np.searchsorted(depths, k))
    return bool(0 < above < len(depths) and depths[above] - depths[above - 1] <= _SPARSE * step)


def _meeting(low: NDArray[np.bool_], high: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of two planes on either side of a gap, the parts that overlap one another: the others end before it."""
    return _touching(low, high), _touching(high, low)


def _touching(plane: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(plane, np.ones((3, 3)))
    return np.asarray(np.isin(parts, np.unique(parts[plane & other])) & plane, bool)


def _distance(filled: NDArray[np.bool_], finer: int) -> NDArray[np.float64]:
    """Pixels to the edge at the centers of voxels, positive inside; far away where there is none."""
    if filled.all() or not filled.any():
        distance = np.full(filled.shape, float(sum(filled.shape)) * (1 if filled.any() else -1))
    else:
        distance = ndimage.distance_transform_edt(filled) - ndimage.distance_transform_edt(~filled)
    return np.asarray(distance[finer // 2 :: finer, finer // 2 :: finer], np.float64)
