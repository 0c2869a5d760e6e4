"""Towers: one modality in, ``Features`` out."""

# made by `make docs`; do not edit
from mmfusion.towers.bags import BagsTower as BagsTower
from mmfusion.towers.base import AdoptedTower as AdoptedTower
from mmfusion.towers.base import Tower as Tower
from mmfusion.towers.global_local import GlobalLocalTower as GlobalLocalTower
from mmfusion.towers.image import Backbone as Backbone
from mmfusion.towers.image import ImageTower as ImageTower
from mmfusion.towers.image import TimmTower as TimmTower
from mmfusion.towers.offline import Source as Source
from mmfusion.towers.several import SeveralTower as SeveralTower
from mmfusion.towers.slices import SlicesTower as SlicesTower
from mmfusion.towers.slices import Stem25D as Stem25D
from mmfusion.towers.table import ColumnAttention as ColumnAttention
from mmfusion.towers.table import FTTransformer as FTTransformer
from mmfusion.towers.table import ReGLU as ReGLU
from mmfusion.towers.table import TableMlp as TableMlp
from mmfusion.towers.table import TableTower as TableTower
from mmfusion.towers.text import TextTower as TextTower
from mmfusion.towers.views import ViewsTower as ViewsTower
from mmfusion.towers.vision import VisionEncoder as VisionEncoder
