"""Temperature maps in DICOM: an RT Dose or a Parametric Map to degrees Celsius on a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian, ParametricMapStorage, RTDoseStorage

from dicom_node.decode.files import Header, quiet
from dicom_node.decode.frame_grid import functional_groups, grid_of_frames, image_axes
from dicom_node.decode.pixels import stored_values
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry

TEMPERATURE_CLASSES = (str(RTDoseStorage), str(ParametricMapStorage))
ZERO_CELSIUS_K = 273.15
#: A map without a unit that is warmer than this everywhere is in kelvin: nobody maps only tissue that boils.
_KELVIN_ABOVE = 150.0
#: How far a plane of an RT Dose may lie from an even spacing, in spacings, before the map is interpolated.
_UNEVEN = 0.01
#: More than any dose grid has; two planes that lie almost in one place would ask for as many.
_MOST_PLANES = 2000
_Map = tuple[NDArray[np.float32], Geometry]


def read_temperature(header: Header, key: str) -> _Map:
    """Degrees Celsius ``[k, j, i]``, NaN where the map says nothing, on a grid in the object's own frame of reference.

    Raises Refused ``region_unreadable``, naming the key: also where the map is in another unit.
    """
    if header.text("SOPClassUID") == RTDoseStorage:
        values, geometry = _dose(header, key)
        check_celsius(values, key)
        return values, geometry
    return _parametric_map(header, key)


def check_celsius(values: NDArray[Any], key: str) -> None:
    """Raises Refused ``region_unreadable`` for a map without a unit whose values look like kelvin."""
    known = values[np.isfinite(values) & (values != 0)]  # zeros are often what surrounds a map
    if known.size and known.min() > _KELVIN_ABOVE:
        text = f"the temperature map looks like kelvin (all above {_KELVIN_ABOVE:g}); threshold and map must be in °C."
        raise Refused("region_unreadable", f"{key}: {text}")


def _dose(header: Header, key: str) -> _Map:
    """The grid as DoseGridScaling means it; planes with uneven spacing are interpolated to an even one."""
    dataset = header.dataset
    scaling = float(dataset.get("DoseGridScaling") or 0)
    if scaling == 0:
        raise Refused("region_unreadable", f"{key}: the RT Dose has no DoseGridScaling, so its values mean nothing.")
    values = (stored_values(header) * scaling).astype(np.float32)
    row, column = image_axes(dataset.ImageOrientationPatient, key)
    position = np.array(dataset.ImagePositionPatient, float)
    along, offsets = _offsets(dataset, np.cross(row, column), position)
    if len(offsets) != len(values):
        raise Refused("region_unreadable", f"{key}: the RT Dose does not say where each of its planes lies.")
    if len(offsets) == 1:
        step = float(dataset.get("SliceThickness") or 0)
    else:
        order = np.argsort(offsets)
        position, offsets, values = (
            position + along * offsets[order[0]],
            offsets[order] - offsets[order[0]],
            values[order],
        )
        step = float(np.diff(offsets).min())
        if step <= 0:
            raise Refused("region_unreadable", f"{key}: two planes of the RT Dose lie in one place.")
        if not offsets[-1] <= _MOST_PLANES * step:
            raise Refused("region_unreadable", f"{key}: the planes of the RT Dose are not evenly spaced.")
        even = np.arange(round(offsets[-1] / step) + 1) * step
        if len(even) != len(offsets) or np.abs(even - offsets).max() > _UNEVEN * step:
            values = _between_planes(values, offsets, even)
        elif len(offsets) > 1:
            step = float(offsets[-1]) / (len(offsets) - 1)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 3] = along * step, position
    matrix[:3, 1] = column * float(dataset.PixelSpacing[0])
    matrix[:3, 2] = row * float(dataset.PixelSpacing[1])
    geometry = Geometry((values.shape[0], values.shape[1], values.shape[2]), matrix, header.text("FrameOfReferenceUID"))
    return values, geometry


def _offsets(
    dataset: Dataset, normal: NDArray[np.float64], position: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The direction in which the planes are counted, and how far along it each lies from the first.

    A GridFrameOffsetVector that begins with 0 counts along the normal; else it holds patient z coordinates (PS3.3
    C.8.8.3.2), which begin with that of the first plane.
    """
    given = dataset.get("GridFrameOffsetVector")
    if given is None or given == "":
        return normal, np.zeros(1)
    offsets = np.atleast_1d(np.array(given, float))
    absolute = abs(offsets[0]) > 1e-3 and abs(offsets[0] - position[2]) < 0.01 and abs(normal[2]) > 0.99
    return np.array([0.0, 0.0, 1.0]) if absolute else normal, offsets - offsets[0]


def _between_planes(
    values: NDArray[np.float32], offsets: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float32]:
    low = np.clip(np.searchsorted(offsets, wanted, side="right") - 1, 0, len(offsets) - 2)
    weight = np.clip((wanted - offsets[low]) / (offsets[low + 1] - offsets[low]), 0, 1)[:, None, None]
    return np.asarray((1 - weight) * values[low] + weight * values[low + 1], np.float32)


def _parametric_map(header: Header, key: str) -> _Map:
    """Each frame by its own real world value mapping; a plane without a frame says nothing."""
    stored = _pixels(header)
    frames, shared = functional_groups(header)
    if len(stored) != len(frames):
        raise Refused("region_unreadable", f"{key}: the map's frames and pixels do not match.")
    geometry, planes = grid_of_frames(header, stored.shape[1:], key)
    if len(set(planes.tolist())) < len(planes):
        raise Refused("region_unreadable", f"{key}: the object holds several maps of one place; export one alone.")
    values = np.full(geometry.shape, np.nan, np.float32)
    units = set()
    for frame, plane, pixels in zip(frames, planes, stored, strict=True):
        values[plane], unit = _mapped(pixels, frame, shared, key)
        units.add(unit)
    if "" in units:
        check_celsius(values, key)
    return values, geometry


def _mapped(pixels: NDArray[np.float64], frame: Dataset, shared: Dataset, key: str) -> tuple[NDArray[np.float64], str]:
    """Degrees Celsius, and the unit that is stated (Cel or K, else empty)."""
    mappings = list(frame.get("RealWorldValueMappingSequence") or shared.get("RealWorldValueMappingSequence") or ())
    if not mappings:
        return pixels, ""
    mapping = next((item for item in mappings if _unit(item) in ("Cel", "K")), mappings[0])
    unit = _unit(mapping)
    if unit not in ("Cel", "K", "1"):
        text = f"the map is in {unit}, not in °C; threshold and map must be in °C."
        raise Refused("region_unreadable", f"{key}: {text}")
    table = mapping.get("RealWorldValueLUTData")
    if table is not None:
        first = int(mapping.get("RealWorldValueFirstValueMapped") or 0)
        index = np.nan_to_num(pixels).astype(int) - first
        table = np.atleast_1d(np.array(table, float))
        known = np.isfinite(pixels) & (index >= 0) & (index < len(table))
        values = np.where(known, table[np.clip(index, 0, len(table) - 1)], np.nan)
    else:
        values = pixels * float(mapping.get("RealWorldValueSlope", 1)) + float(
            mapping.get("RealWorldValueIntercept", 0)
        )
    return (values - ZERO_CELSIUS_K if unit == "K" else values), ("" if unit == "1" else unit)


def _unit(mapping: Dataset) -> str:
    """The UCUM code of the values' unit; 1, which is none, where it is not stated."""
    codes = mapping.get("MeasurementUnitsCodeSequence") or [Dataset()]
    return str(codes[0].get("CodeValue") or "1").strip()


def _pixels(header: Header) -> NDArray[np.float64]:
    """(frames, rows, columns) as stored, integers and floats alike; NaN where padded."""
    padding = None
    if header.pixels == "present":
        with quiet():
            dataset = dcmread(header.path, force=True)
        for keyword, kind in (("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")):
            if keyword in dataset:
                order = ">" if header.meta("TransferSyntaxUID") == ExplicitVRBigEndian else "<"
                flat = np.frombuffer(dataset[keyword].value, order + kind).astype(np.float64)
                padding = dataset.get(keyword.replace("Data", "PaddingValue"))
                values = flat.reshape(-1, int(dataset.Rows), int(dataset.Columns))
                return values if padding is None else np.where(values == float(padding), np.nan, values)
    values = stored_values(header).astype(np.float64)
    padding = header.dataset.get("PixelPaddingValue")
    return values if padding is None else np.where(values == float(padding), np.nan, values)
