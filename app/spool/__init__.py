"""A folder of files on this host's disk that keeps lines until somebody has taken them elsewhere.

Owns files, order and durability; must not know what is in a line, or where it goes.
"""

from app.spool.folder import Batch, Contents, Folder, SpoolRefused
from app.spool.lines import UNPROVEN, Line, Mark

__all__ = ["UNPROVEN", "Batch", "Contents", "Folder", "Line", "Mark", "SpoolRefused"]
