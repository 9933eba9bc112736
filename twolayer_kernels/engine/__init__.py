"""Runs of the compiled training loop, for the front ends of torch, NumPy and scikit-learn.

It knows arrays and whatever else the extension can read, and imports neither torch nor
scikit-learn.
"""

from .batches import Batches as Batches
from .batches import Chunk as Chunk
from .batches import Draw as Draw
from .batches import Numbers as Numbers
from .batches import Samples as Samples
from .memory import overlaps_itself as overlaps_itself
from .memory import share_memory as share_memory
from .steps import Mover as Mover
from .steps import NonFiniteLoss as NonFiniteLoss
from .steps import Reals as Reals
from .steps import Told as Told
from .steps import Training as Training
from .steps import new_training as new_training
from .steps import run_chunk as run_chunk
from .steps import tell_losses as tell_losses
from .walk import ByFunction as ByFunction
from .walk import Held as Held
from .walk import Schedule as Schedule
from .walk import Source as Source
from .walk import Walk as Walk
