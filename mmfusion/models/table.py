"""Table-only models, as baselines for fusion with columns."""

from mmfusion.models.architecture import arch

arch(
    "table_mlp",
    "MLP on table columns alone; needs table_args (numeric, categories).",
    table_encoder="table_mlp",
    head="linear",
)
arch(
    "table_ft_transformer",
    "FT-Transformer on table columns alone; needs table_args (numeric, categories).",
    table_encoder="ft_transformer",
    head="linear",
)
