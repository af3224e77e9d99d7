"""Bodies of batches, compressed with a dictionary: most of a batch is what every batch says.

Dictionary 0 is built in. A store trains better ones on its own batches; each body says which one
it needs, and dictionaries are never deleted while a body needs them.
"""

from __future__ import annotations

from collections.abc import Sequence

import zstandard

from onymous.store import history_sql as sql
from onymous.store.port import Session

LEVEL = 3
#: bytes of a trained dictionary, and batches it is trained on
SIZE, SAMPLES = 32_768, 2_000
#: batches after which the first one is trained: until then bodies are several times larger
FIRST = 1_000

_START = (
    '{"events":[{"event_type":"custom_event","data":{"event_name":"","custom_event_type":'
    '"navigation","custom_attributes":{"":""},"custom_flags":{},"location":null,'
    '"timestamp_unixtime_ms":17,"session_uuid":"","session_start_unixtime_ms":17,'
    '"source_message_id":"","active_time_on_site_ms":0,"page_url":"https://www."}},'
    '{"event_type":"session_start","data":{}},{"event_type":"session_end","data":'
    '{"session_duration_ms":0}},{"event_type":"screen_view","data":{"screen_name":"",'
    '"activity_type":"activity_started"}},{"event_type":"application_state_transition","data":'
    '{"application_transition_type":"application_initialized","is_first_run":false,'
    '"is_upgrade":false,"launch_referral":""}},{"event_type":"user_attribute_change","data":'
    '{"user_attribute_name":"","new":"","old":null,"deleted":false,"is_new_attribute":true}},'
    '{"event_type":"user_identity_change","data":{"new":{"identity_type":"customer_id",'
    '"identity":"","timestamp_unixtime_ms":17,"created_this_batch":true},"old":null}},'
    '{"event_type":"commerce_event","data":{"product_action":{"action":"purchase",'
    '"transaction_id":"","total_amount":0,"tax_amount":0,"shipping_amount":0,"coupon_code":null,'
    '"products":[{"id":"","name":"","brand":"","category":"","variant":"","position":1,'
    '"price":0,"quantity":1,"coupon_code":null,"total_product_amount":0,"custom_attributes":{}}]},'
    '"promotion_action":null,"product_impressions":null,"shopping_cart":null,'
    '"currency_code":"USD","is_non_interactive":false}}],"device_info":{"platform":"web",'
    '"screen_width":1920,"screen_height":1080,"brand":"","device_model":"","os_version":"",'
    '"locale_language":"en","locale_country":"US","network_country":"US","timezone_offset":0,'
    '"android_advertising_id":"","ios_advertising_id":"","ios_idfv":"","push_token":"",'
    '"limit_ad_tracking":false},"application_info":{"application_name":"",'
    '"application_version":"1.0"},"user_attributes":{"$firstname":"","$lastname":"",'
    '"$city":"","$country":"","$age":""},"deleted_user_attributes":[],"user_identities":'
    '{"customer_id":"","customerid":"","email":"@example.com","other":"","other_id_2":""},'
    '"consent_state":{"gdpr":{"":{"consented":true,"timestamp_unixtime_ms":17,"document":""}},'
    '"ccpa":null},"integration_attributes":{},"context":{"data_plan":{"plan_id":""}},'
    '"environment":"production","mp_deviceid":"","mpid":"","sdk_version":"2.","source_request_id":'
    '"","schema_version":2,"timestamp_unixtime_ms":17'
)


class Bodies:
    """Packs and unpacks bodies; one per process and store."""

    def __init__(self) -> None:
        self._packers: dict[int, zstandard.ZstdCompressor] = {}
        self._unpackers: dict[int, zstandard.ZstdDecompressor] = {}
        self.current = 0
        #: batches with events packed with the built-in dictionary since somebody asked; what rows
        #: of files say teaches little about them
        self.plain = 0
        self._learn(
            0,
            zstandard.ZstdCompressionDict(
                _START.encode(), dict_type=zstandard.DICT_TYPE_RAWCONTENT
            ),
        )

    def pack(self, body: bytes) -> tuple[int, bytes]:
        """Return the number of the dictionary used, and the compressed body."""
        current = self.current
        if not current and says_events(body):
            self.plain += 1
        return current, self._packers[current].compress(body)

    def pack_all(self, bodies: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Return many bodies packed; other threads run meanwhile."""
        if not bodies:
            return []
        current = self.current
        packed = self._packers[current].multi_compress_to_buffer(list(bodies))
        return [(current, packed[n].tobytes()) for n in range(len(packed))]

    @property
    def ripe(self) -> bool:
        """Return whether it is time for the first dictionary."""
        return self.plain >= FIRST

    async def unpack(self, session: Session, dictionary: int, body: bytes) -> bytes:
        """Return a body as it was."""
        if dictionary not in self._unpackers:
            rows = await session.rows(sql.DICTIONARY_GET, dictionary)
            self._learn(dictionary, zstandard.ZstdCompressionDict(bytes(rows[0][0])))
        return self._unpackers[dictionary].decompress(bytes(body))

    async def load(self, session: Session) -> None:
        """Use the latest dictionary of the store."""
        rows = await session.rows(sql.DICTIONARY_LATEST)
        if rows and rows[0][0] > self.current:
            self._learn(rows[0][0], zstandard.ZstdCompressionDict(bytes(rows[0][1])))
            self.current = rows[0][0]

    def _learn(self, number: int, dictionary: zstandard.ZstdCompressionDict) -> None:
        dictionary.precompute_compress(level=LEVEL)
        self._packers[number] = zstandard.ZstdCompressor(
            dict_data=dictionary,
            write_content_size=True,
            write_dict_id=False,
        )
        self._unpackers[number] = zstandard.ZstdDecompressor(dict_data=dictionary)


def says_events(body: bytes) -> bool:
    """Return whether a batch is more than facts about a person, as rows of files are."""
    return b'"events"' in body


def train(samples: Sequence[bytes]) -> bytes:
    """Return a dictionary trained on bodies; raises `ValueError` for too few."""
    if len(samples) < 100:
        raise ValueError("too few batches to learn from")
    return zstandard.train_dictionary(SIZE, [*samples]).as_bytes()
