"""How records and ledger entries are packed into one column, and their lookup slots."""

from __future__ import annotations

import msgspec

from onymous.rules.records import Record, Value
from onymous.store.port import Row

_values = msgspec.msgpack.Decoder(list[Value])
_encode = msgspec.msgpack.Encoder().encode
#: codes per pool; a slot is pool * SLOTS + code
SLOTS = 64


def unpack_record(row: Row) -> Record:
    """Make a record of a row of the columns `sql.RECORD`."""
    return Record(row[0], row[1], row[2], row[3], row[4], row[5], _values.decode(row[6]))


def pack_values(record: Record) -> bytes:
    """Pack the values of a record."""
    return _encode(record.values)


def slot(pool: int, code: int) -> int:
    """Return the lookup slot of a type in a pool."""
    return pool * SLOTS + code
