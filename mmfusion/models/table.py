"""Models of columns alone, beside which a fusion with columns stands."""

from mmfusion.models.architecture import arch

arch(
    "table_mlp",
    "A perceptron on the columns of a table alone; needs table_args (numeric, categories).",
    table_encoder="table_mlp",
    head="linear",
)
arch(
    "table_ft_transformer",
    "FT-Transformer on the columns of a table alone; needs table_args (numeric, categories).",
    table_encoder="ft_transformer",
    head="linear",
)
