"""Source-available references: they see labelled source and unlabelled target together, so only a provider runs them.

They are the field's usual comparison for source-free methods, and never cross the wire: nothing under
``fedser.federation`` or ``fedser.adapt`` and neither node imports this package (a test holds it), and
``fedser.adapt.METHODS``, the only list that a name from the wire can choose from, does not know them.
"""

from fedser.transfer.reference import Batch, Part, Reference
from fedser.transfer.references import REFERENCES, make, options_of
from fedser.transfer.training import TransferModel, transfer

__all__ = ["REFERENCES", "Batch", "Part", "Reference", "TransferModel", "make", "options_of", "transfer"]
