"""The signed ablative margin on sub-voxel surfaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.geometry import FloatArray
from pipeline.surface import Level, Surface


@dataclass(frozen=True, eq=False)
class MarginMap:
    """Signed distance (mm) from each tumor surface vertex to the zone surface, positive inside the zone."""

    tumor: Surface
    distance_mm: FloatArray

    @property
    def thinnest(self) -> int:
        return int(np.argmin(self.distance_mm))

    @property
    def minimal_margin_mm(self) -> float:
        return float(self.distance_mm[self.thinnest])

    def surface_fraction_below(self, limit_mm: float) -> float:
        """Share of the tumor's surface area with a margin under the limit."""
        area = self.tumor.vertex_areas_mm2()
        return float(area[self.distance_mm < limit_mm].sum() / area.sum())


def measure_margin(tumor: Surface, zone: Level) -> MarginMap:
    """The margin at every vertex of the tumor surface; the zone's level gives the sign. Both in the follow-up's frame.

    Raises ValueError for a zone without an inside.
    """
    distance = distance_to_surface_mm(tumor.vertices_lps_mm, zone.surface())
    return MarginMap(tumor, np.where(zone.at(tumor.vertices_lps_mm) > 0, distance, -distance))


def distance_to_surface_mm(points: FloatArray, surface: Surface) -> FloatArray:
    """(n,) distance from (n, 3) points to the nearest triangle of a mesh whose triangles are small and even.

    Compared are the triangles around the `_NEAREST` nearest vertices. Those are looked up to one part in a hundred:
    points in the middle of a ball are as far from all of its surface, and an exact search would look at every vertex.
    For the points with the least distances, which make the minimal margin, the search is exact.
    """
    tree = cKDTree(surface.vertices_lps_mm)
    count = min(_NEAREST, len(surface.vertices_lps_mm))
    fans = _Fans.of(surface)
    best = fans.distance_mm(points, tree.query(points, k=count, eps=0.01)[1].reshape(len(points), -1))
    least = np.argsort(best)[:_EXACT]
    exact = fans.distance_mm(points[least], tree.query(points[least], k=count)[1].reshape(len(least), -1))
    best[least] = np.minimum(best[least], exact)
    return best


_NEAREST, _EXACT = 3, 100


@dataclass(frozen=True, eq=False)
class _Fans:
    """The triangles around each vertex. faces: triangle numbers, those of vertex n from first[n] to first[n + 1]."""

    corners: FloatArray
    faces: NDArray[np.int64]
    first: NDArray[np.int64]

    @staticmethod
    def of(surface: Surface) -> _Fans:
        order = np.argsort(surface.faces.ravel(), kind="stable")
        size = np.bincount(surface.faces.ravel(), minlength=len(surface.vertices_lps_mm))
        return _Fans(surface.vertices_lps_mm[surface.faces], order // 3, np.concatenate([[0], np.cumsum(size)]))

    def distance_mm(self, points: FloatArray, vertices: NDArray[np.int64]) -> FloatArray:
        """(n,) least distance from (n, 3) points to the triangles around (n, k) vertices of each."""
        best = np.full(len(points), np.inf)
        for near in vertices.T:
            first, size = self.first[near], self.first[near + 1] - self.first[near]
            for n in range(int(size.max(initial=0))):
                todo = size > n
                triangles = self.corners[self.faces[first[todo] + n]]
                best[todo] = np.minimum(best[todo], _to_triangles(points[todo], triangles))
        return best


def _to_triangles(points: FloatArray, corners: FloatArray) -> FloatArray:
    """(n,) distances from points (n or 1, 3) to triangles (n, 3, 3) (Ericson, Real-Time Collision Detection, 5.1.5)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    best = np.minimum(_to_segments(points, a, b), np.minimum(_to_segments(points, b, c), _to_segments(points, c, a)))
    normal = np.cross(b - a, c - a)
    size = np.einsum("ij,ij->i", normal, normal)
    ok = size > 1e-18
    safe = np.where(ok, size, 1.0)
    offset = points - a
    height = np.einsum("ij,ij->i", offset, normal)
    foot = offset - normal * (height / safe)[:, None]
    v = np.einsum("ij,ij->i", np.cross(foot, c - a), normal) / safe
    w = np.einsum("ij,ij->i", np.cross(b - a, foot), normal) / safe
    over = ok & (v >= 0) & (w >= 0) & (v + w <= 1)
    return np.asarray(np.where(over, np.abs(height) / np.sqrt(safe), best))


def _to_segments(points: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    along = b - a
    length = np.maximum(np.einsum("ij,ij->i", along, along), 1e-18)
    t = np.clip(np.einsum("ij,ij->i", points - a, along) / length, 0, 1)
    return np.asarray(np.linalg.norm(points - a - along * t[:, None], axis=1))
