"""``soup(config)``: one model from the weights of several runs."""

from mmfusion.averaging.config import SoupConfig
from mmfusion.averaging.soup import Soup, make_soup


def soup(config: SoupConfig) -> Soup:
    """Average the weights of several runs of one architecture into one model."""
    print(f"a soup of {len(config.models)} models")
    return make_soup(**vars(config))
