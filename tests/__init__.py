"""The tests of fsslib, and the type checker they run it under: beartype, with an int welcome for a float (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
