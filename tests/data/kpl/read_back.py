"""De-aggregates records with the PyPI package aws-kinesis-agg.

Reads a JSON list of payloads in hex from stdin and writes, for each, its user records as JSON.
"""

import base64
import json
import sys

from aws_kinesis_agg.deaggregator import deaggregate_records


def user_records(payload_hex):
    record = {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "sequenceNumber": "1",
            "approximateArrivalTimestamp": 0,
            "partitionKey": "outer",
            "data": base64.b64encode(bytes.fromhex(payload_hex)).decode(),
        }
    }
    for user_record in deaggregate_records([record]):
        user_record = user_record["kinesis"]
        assert user_record.get("aggregated"), "not recognised as an aggregate"
        yield {
            "partition_key": user_record["partitionKey"],
            "explicit_hash_key": user_record["explicitHashKey"],
            "data_hex": base64.b64decode(user_record["data"]).hex(),
            "sub_sequence_number": user_record["subSequenceNumber"],
        }


json.dump([list(user_records(payload)) for payload in json.load(sys.stdin)], sys.stdout)
