"""The ablation zone that applicators and a protocol should make: bioheat on a grid, and what follows from it."""
