"""The tissues that the simulation knows, each number with where it comes from."""

from __future__ import annotations

from dataclasses import replace

from pipeline.simulate.tissue import Tissue

_BLOOD_J_M3K = 1050.0 * 3600.0  # density times heat capacity of blood: MDPI Micromachines 2025;16:1321, table
#: Ranges of ice and the temperature whose value stands for each: around the probe, cold, and near the edge.
_ICE_RANGES = ((-100.0, -125.0), (-40.0, -65.0), (0.0, -22.0))
_AT_C = -40.0  # where the tables' values of frozen tissue are taken to hold

_TABLE = "MDPI Micromachines 2025;16:1321 (unfrozen, frozen, latent heat, range -1 to -8 °C)"
_ITIS = "handbook values in the manner of the IT'IS database; unverified default"
_GENERIC = "generic: no source found"


def ice_conductivity(temperature_c: float) -> float:
    """W/m/K of water ice: 488.19 / T + 0.4685, T in kelvin (Hobbs, Ice Physics, 1974)."""
    return 488.19 / (temperature_c + 273.15) + 0.4685


def ice_capacity(temperature_c: float) -> float:
    """J/kg/K of water ice: 185 + 6.89 T, T in kelvin (Fukusako, Int J Thermophys 1990;11:353)."""
    return 185.0 + 6.89 * (temperature_c + 273.15)


def freezing_tissue(
    name: str,
    *,
    conductivity: tuple[float, float],
    capacity: tuple[float, float],
    latent_mj_m3: float,
    source: str,
    freezes_c: tuple[float, float] = (-1.0, -8.0),
) -> Tissue:
    """A tissue from a table's values (unfrozen, frozen). Ice conducts better and holds less heat the colder it is: the
    frozen values are taken to hold at -40 °C and to change with temperature as those of water ice do (values that stop
    at -40 °C miss this: Choi & Bischof, Cryobiology 2010;60:52).

    conductivity: W/m/K; capacity: MJ/m³/K; freezes_c: from, to.
    """
    start, end = freezes_c
    k_ice = [conductivity[1] * ice_conductivity(t) / ice_conductivity(_AT_C) for _, t in _ICE_RANGES]
    c_ice = [1e6 * capacity[1] * ice_capacity(t) / ice_capacity(_AT_C) for _, t in _ICE_RANGES]
    k_between = 0.5 * (conductivity[0] + k_ice[-1])
    c_between = 0.5 * (1e6 * capacity[0] + c_ice[-1]) + 1e6 * latent_mj_m3 / (start - end)
    return Tissue(
        name,
        knots_c=(-100.0, -40.0, end, start),
        conductivity_w_mk=(*k_ice, k_between, conductivity[0]),
        capacity_j_m3k=(*c_ice, c_between, 1e6 * capacity[0]),
        freezes_from_c=start,
        freezes_to_c=end,
        source=source,
    )


def perfused(tissue: Tissue, blood_flow_1_s: float) -> Tissue:
    """The tissue with so much blood, in its own volumes a second."""
    return replace(tissue, perfusion_w_m3k=blood_flow_1_s * _BLOOD_J_M3K)


SOFT_TISSUE = perfused(
    freezing_tissue(
        "soft_tissue",
        conductivity=(0.5, 2.0),
        capacity=(3.6, 1.8),
        latent_mj_m3=250.0,
        source=_TABLE,
    ),
    0.0005,
)
LIVER = perfused(
    freezing_tissue(
        "liver",
        conductivity=(0.52, 2.0),
        capacity=(3.82, 1.8),
        latent_mj_m3=159.0,  # 147.8 J/g times 1079 kg/m³
        source=f"latent heat: bovine liver, Sci Rep 2021, s41598-021-95204-2; frozen: {_TABLE}; else {_ITIS}",
    ),
    0.015,
)
KIDNEY = perfused(
    freezing_tissue(
        "kidney",
        conductivity=(0.53, 2.0),
        capacity=(4.01, 1.8),
        latent_mj_m3=250.0,
        source=f"frozen, latent heat: {_TABLE}; else {_ITIS}",
    ),
    0.06,
)
LUNG = perfused(
    freezing_tissue(
        "lung",
        conductivity=(0.39, 0.75),
        capacity=(1.53, 0.76),
        latent_mj_m3=75.0,
        source=f"inflated, 394 kg/m³, latent heat 0.3 of soft tissue's; {_ITIS}",
    ),
    0.004,
)
BONE = perfused(
    freezing_tissue(
        "bone",
        conductivity=(0.40, 0.60),
        capacity=(2.59, 1.9),
        latent_mj_m3=40.0,
        source=f"Cancers 2019;11:1183, table 1 (IT'IS); frozen, latent heat: {_GENERIC}",
    ),
    0.0009,  # 3400 W/m³/K
)
FAT = perfused(
    freezing_tissue(
        "fat",
        conductivity=(0.21, 0.30),
        capacity=(2.14, 1.5),
        latent_mj_m3=60.0,
        source=f"latent heat 0.25 of soft tissue's; {_ITIS}",
    ),
    0.0005,
)
TUMOR = perfused(
    freezing_tissue(
        "tumor",
        conductivity=(0.57, 2.0),
        capacity=(3.9, 1.8),
        latent_mj_m3=250.0,
        source=f"Cancers 2019;11:1183, table 1 (IT'IS; of brain); frozen, latent heat: {_TABLE}",
    ),
    0.006,  # 22 545 W/m³/K
)
VESSEL = replace(SOFT_TISSUE, name="vessel", is_vessel=True, source="kept at body temperature by the blood in it")
#: Air or bowel gas. Its heat capacity is a thousand times air's, so that it sets no time step; it still insulates.
GAS = freezing_tissue(
    "gas", conductivity=(0.026, 0.026), capacity=(1.2, 1.2), latent_mj_m3=0.1, source="conductivity of air (handbook)"
)
#: Water with 1 to 2 % agar: what device sizes are measured in.
GEL = freezing_tissue(
    "gel",
    conductivity=(0.60, ice_conductivity(_AT_C)),
    capacity=(4.18, 917e-6 * ice_capacity(_AT_C)),
    latent_mj_m3=320.0,
    freezes_c=(-0.1, -1.0),
    source="water and its ice (Hobbs 1974; Fukusako 1990; latent heat 334 kJ/kg, 96 % water)",
)

TISSUES: dict[str, Tissue] = {
    tissue.name: tissue for tissue in (SOFT_TISSUE, LIVER, KIDNEY, LUNG, BONE, FAT, TUMOR, VESSEL, GAS, GEL)
}


def at_rest(tissue: Tissue, rest_c: float) -> Tissue:
    """The tissue at another temperature before the procedure, as in a phantom."""
    return replace(tissue, rest_c=rest_c)


#: Water boils off: 2.26 MJ/kg, 1060 kg/m³, three quarters of it water, over 2 K; what is left holds 0.44 MJ/m³/K (the
#: effective heat capacity above 99 °C of heat ablation models) and conducts less.
_BOILS_C = (99.0, 101.0)
_VAPOR_MJ_M3, _DRY_MJ_M3K, _DRY_CONDUCTIVITY = 1800.0, 0.44, 0.35


def heated(tissue: Tissue) -> Tissue:
    """The tissue for heat instead of cold: its water boils off; its ice is of one kind."""
    ends, begins = tissue.freezes_to_c, tissue.freezes_from_c
    ice, thaws, warm = (tissue.knots_c.index(ends), tissue.knots_c.index(begins), len(tissue.knots_c))
    k, c = tissue.conductivity_w_mk, tissue.capacity_j_m3k
    dry_k = min(_DRY_CONDUCTIVITY, k[warm])
    boiling = 0.5e6 * (1e-6 * c[warm] + _DRY_MJ_M3K) + 1e6 * _VAPOR_MJ_M3 / (_BOILS_C[1] - _BOILS_C[0])
    return replace(
        tissue,
        knots_c=(ends, begins, *_BOILS_C),
        conductivity_w_mk=(k[ice], k[thaws], k[warm], 0.5 * (k[warm] + dry_k), dry_k),
        capacity_j_m3k=(c[ice], c[thaws], c[warm], boiling, 1e6 * min(_DRY_MJ_M3K, 1e-6 * c[warm])),
    )
