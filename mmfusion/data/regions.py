"""Reading step: regions of interest."""

from dataclasses import replace

from mmfusion.data.problems import Problem, ProblemKind
from mmfusion.data.reading import CaseReading
from mmfusion.text.template import cell_number, cell_text


def read_regions(reading: CaseReading) -> CaseReading:
    """Read ``dataset.roi_columns`` as regions (x0, y0, x1, y1); empty cells mean no region."""
    config, cases = reading.config, reading.cases
    if not config.roi_columns:
        return reading
    cells = [[cell_text(cell) for cell in reading.raw.columns[name]] for name in config.roi_columns]
    missing = {value.lower() for value in config.missing_values}
    regions: dict[int, tuple[float, ...]] = {}
    problems = []
    for row, id_ in cases.frame["id"].items():
        corners = [column[row - 1] for column in cells]
        if all(corner is None or corner.lower() in missing for corner in corners):
            continue
        region = tuple(number for corner in corners if (number := cell_number(corner)) is not None)
        if len(region) < 4:
            kind, message = ProblemKind.REGION_NOT_NUMERIC, "expected four numbers or none"
        elif region[2] <= region[0] or region[3] <= region[1]:
            kind, message = ProblemKind.REGION_EMPTY, "the region is empty: x1 must be above x0, y1 above y0"
        else:
            regions[row] = region
            continue
        value, names = ", ".join(map(str, corners)), ", ".join(config.roi_columns)
        problems.append(Problem.of_row(kind, row, id_, names, value, message))
    return replace(reading, cases=replace(cases, regions=regions)).with_problems(problems)
