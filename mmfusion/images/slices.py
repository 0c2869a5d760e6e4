"""Selection of slices of a volume, and neighbors of a slice. Imports no heavy library."""


def check_choice_of_slices(slice_: int | str | None, slices: int | str | None) -> None:
    """Raise ValueError for invalid values of ``dataset.slice`` and ``dataset.slices``, and for both together.

    Raises:
        ValueError: A value is invalid, or both are given.
    """
    if slice_ is not None and slices is not None:
        raise ValueError("dataset.slice (one picture) and dataset.slices (a sequence) cannot be combined; choose one.")
    if slice_ is not None and slice_ != "middle" and (not isinstance(slice_, int) or slice_ < 0):
        raise ValueError(f"dataset.slice must be the number of a slice, from 0, or middle; got {slice_!r}.")
    if slices is not None:
        chosen_slices(slices, 2)


def one_slice(choice: int | str | None, count: int) -> int:
    """Index of the selected slice of a file with ``count`` slices; 0 for a single one.

    Args:
        choice: Index, or ``middle``; None accepts only files with a single slice.
        count: Number of slices.

    Raises:
        ValueError: The slice does not exist, or there are several and no choice.
    """
    if count == 1:
        return 0
    if choice is None:
        ways = f"dataset.slice selects one (0 to {count - 1}, or middle), dataset.slices all reads all as a study"
        raise ValueError(f"it has {count} slices, but a single image is expected; {ways}")
    position = count // 2 if choice == "middle" else int(choice)
    if not 0 <= position < count:
        raise ValueError(f"it has {count} slices, 0 to {count - 1}; dataset.slice {choice} does not exist")
    return position


def chosen_slices(choice: int | str | None, count: int) -> list[int]:
    """Indices of the slices to read of a file.

    Args:
        choice: ``all``; ``start:stop:step`` as in Python, such as ``20:80:2``; or a number of equally spaced ones.
            None reads all.
        count: Number of slices.

    Raises:
        ValueError: The choice has another form.
    """
    if choice is None or choice == "all":
        return list(range(count))
    if isinstance(choice, int) and choice > 0:
        return equally_spaced(count, choice)
    try:
        bounds = [int(part) if part else None for part in str(choice).split(":")]
        if not 2 <= len(bounds) <= 3:
            raise ValueError
        return list(range(count))[slice(*bounds)]
    except ValueError:
        wanted = "all, start:stop:step such as 20:80:2, or a number of slices"
        raise ValueError(f"dataset.slices must be {wanted}; got {choice!r}.") from None


def equally_spaced(count: int, most: int | None) -> list[int]:
    """Indices of at most ``most`` of ``count`` slices, including the first and last; for one, the middle."""
    if most is None or count <= most:
        return list(range(count))
    return [count // 2] if most == 1 else [round(i * ((count - 1) / (most - 1))) for i in range(most)]


def neighbour_slices(i: int, n: int, mode: str = "replicate") -> tuple[int, int, int]:
    """The slices (previous, i, next) that a 2.5D stem stacks as three channels.

    Args:
        i: Slice index, 0-based.
        n: Number of slices.
        mode: Neighbor of an end slice: ``replicate`` repeats it, ``mirror`` uses its only neighbor twice.

    Raises:
        ValueError: ``i`` is out of range, or the mode is unknown.
    """
    if not 0 <= i < n:
        raise ValueError(f"Slice {i} does not exist; there are {n} slices, 0 to {n - 1}.")
    if mode == "replicate":
        return max(i - 1, 0), i, min(i + 1, n - 1)
    if mode == "mirror":
        return (i - 1 if i > 0 else min(1, n - 1)), i, (i + 1 if i < n - 1 else max(n - 2, 0))
    raise ValueError(f"Unknown mode {mode!r}; the modes are replicate, mirror.")
