"""Onymous: the open, self-hosted identity layer. One person, many names, every answer explained.

>>> import onymous
>>> ids = onymous.open("./data")
>>> ids.login({"customerid": "42", "email": "a@b.c"}).mpid  # doctest: +SKIP
'-2398457239845723984'
"""

from onymous.library import Onymous, Person, open

__all__ = ["Onymous", "Person", "open"]
