"""The signed ablative margin on sub-voxel surfaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
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
    """(n,) exact distance from (n, 3) points to the nearest triangle.

    Triangles are looked up by their centers; all whose circle could hold a nearer point than the nearest vertex are
    compared, so the answer does not depend on how long the triangles are.
    """
    corners = surface.vertices_lps_mm[surface.faces]
    centers = corners.mean(1)
    reach = float(np.linalg.norm(corners - centers[:, None], axis=2).max())
    nearest_vertex = cKDTree(surface.vertices_lps_mm).query(points)[0]
    tree = cKDTree(centers)
    count = min(24, len(centers))
    center_distance, near = tree.query(points, k=count)
    near, center_distance = near.reshape(len(points), -1), center_distance.reshape(len(points), -1)
    best = np.full(len(points), np.inf)
    for n in range(count):
        todo = center_distance[:, n] - reach < np.minimum(best, nearest_vertex)
        if todo.any():
            best[todo] = np.minimum(best[todo], _to_triangles(points[todo], corners[near[todo, n]]))
    open_ends = np.flatnonzero((center_distance[:, -1] - reach < best) & (count < len(centers)))
    # Exact completion where it matters: the points with the smallest distances.
    for p in open_ends[np.argsort(best[open_ends])][:200]:
        candidates = tree.query_ball_point(points[p], best[p] + reach)
        best[p] = min(best[p], float(_to_triangles(points[p : p + 1], corners[candidates]).min()))
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
