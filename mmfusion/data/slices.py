"""Which slices lie beside a slice."""


def neighbour_slices(i: int, n: int, mode: str = "replicate") -> tuple[int, int, int]:
    """The slices (previous, i, next) that a 2.5D stem stacks as three channels (equations 19-20 of the report).

    Args:
        i: Slice index, 0-based.
        n: Number of slices.
        mode: What an end slice has beside it: ``replicate`` repeats it, ``mirror`` takes its one neighbor twice.

    Raises:
        ValueError: ``i`` is no slice, or the mode is unknown.
    """
    if not 0 <= i < n:
        raise ValueError(f"Slice {i} does not exist; there are {n} slices, 0 to {n - 1}.")
    if mode == "replicate":
        return max(i - 1, 0), i, min(i + 1, n - 1)
    if mode == "mirror":
        return (i - 1 if i > 0 else min(1, n - 1)), i, (i + 1 if i < n - 1 else max(n - 2, 0))
    raise ValueError(f"Unknown mode {mode!r}; the modes are replicate, mirror.")
