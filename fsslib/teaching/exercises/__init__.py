"""Checks for the notebooks' exercises, one file a lesson: `fss.exercises.check_...(your_function)`.

A check compares the reader's function with the library or with an oracle, prints one line when it passed, and raises
AssertionError with a hint when it did not.
"""

from fsslib.teaching.exercises.adversarial import *  # noqa: F403
from fsslib.teaching.exercises.contrast import *  # noqa: F403
from fsslib.teaching.exercises.folder import *  # noqa: F403
from fsslib.teaching.exercises.memory import *  # noqa: F403
from fsslib.teaching.exercises.pixda import *  # noqa: F403
from fsslib.teaching.exercises.pooling import *  # noqa: F403
from fsslib.teaching.exercises.rtd import *  # noqa: F403
from fsslib.teaching.exercises.similarity import *  # noqa: F403
from fsslib.teaching.exercises.start import *  # noqa: F403
