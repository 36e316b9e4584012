"""The signed ablative margin on sub-voxel surfaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.geometry import FloatArray
from pipeline.surface import Level, Surface

_NEAREST = 3
#: Points in the middle of a ball are as far from all of its surface, and a search for the very nearest vertex looks at
#: every one; one that is content with a hundredth more does not.
_SLACK = 0.01
_WORKERS = 2  # threads that look up nearest vertices
_EXACT = 100


@dataclass(frozen=True, eq=False)
class MarginMap:
    """Signed distance (mm) from each tumor surface vertex to the zone's edge, positive inside the zone."""

    tumor: Surface
    distance_mm: FloatArray
    edge: ZoneEdge

    @property
    def thinnest(self) -> int:
        return int(np.argmin(self.distance_mm))

    @property
    def minimal_margin_mm(self) -> float:
        return float(self.distance_mm[self.thinnest])

    def surface_fraction_below(self, limit_mm: float) -> float:
        """Share of the tumor's surface area with a margin under the limit."""
        return self.tumor.area_fraction(self.distance_mm < limit_mm)


def measure_margin(tumor: Surface, zone: Level) -> MarginMap:
    """The margin at every vertex of the tumor surface; the zone's level gives the sign. Both in the follow-up's frame.

    Raises ValueError for a zone without an inside. The least margins, of which the minimal one is reported, are looked
    up exactly, the others as `distance_to_surface_mm` does.
    """
    points, edge = tumor.vertices_lps_mm, ZoneEdge(zone, _Fans.of(zone.surface()))
    margin = edge.margin_mm(points)
    least = np.argsort(margin)[:_EXACT]
    margin[least] = edge.margin_mm(points[least], slack=0.0)
    return MarginMap(tumor, margin, edge)


@dataclass(frozen=True, eq=False)
class ZoneEdge:
    """A zone's edge to measure margins to; the level tells on which side of it a point lies."""

    level: Level
    fans: _Fans

    def margin_mm(self, points_lps_mm: FloatArray, *, slack: float = _SLACK, nearest: int = _NEAREST) -> FloatArray:
        """(n,) signed distance from (n, 3) points of the zone's frame to the edge, positive inside; slack, nearest: as
        for `_Fans.distance_mm`."""
        sign = np.where(self.level.at(points_lps_mm) > 0, 1.0, -1.0)
        return np.asarray(sign * self.fans.distance_mm(points_lps_mm, slack=slack, nearest=nearest))


def distance_to_surface_mm(points: FloatArray, surface: Surface) -> FloatArray:
    """(n,) distance in mm from (n, 3) points to a mesh of small, even triangles; at most `_SLACK` of it too long."""
    return _Fans.of(surface).distance_mm(points, slack=_SLACK)


@dataclass(frozen=True, eq=False)
class _Fans:
    """A mesh to measure distances to. corners: (m, 3, 3), of each triangle; tree: the vertices; faces: the triangles
    around each vertex, those of vertex n from first[n] to first[n + 1].
    """

    corners: FloatArray
    tree: cKDTree
    faces: NDArray[np.int64]
    first: NDArray[np.int64]

    @staticmethod
    def of(surface: Surface) -> _Fans:
        vertices, faces = surface.vertices_lps_mm, surface.faces
        order = np.argsort(faces.ravel(), kind="stable")
        size = np.bincount(faces.ravel(), minlength=len(vertices))
        return _Fans(vertices[faces], cKDTree(vertices), order // 3, np.concatenate([[0], np.cumsum(size)]))

    def distance_mm(self, points: FloatArray, *, slack: float, nearest: int = _NEAREST) -> FloatArray:
        """(n,) least distance from (n, 3) points to the triangles around the nearest vertices of each, so many.

        slack: a vertex farther by this fraction counts as nearest too.
        """
        count = min(nearest, self.tree.n)
        vertices = self.tree.query(points, k=count, eps=slack, workers=_WORKERS)[1].reshape(len(points), -1)
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
