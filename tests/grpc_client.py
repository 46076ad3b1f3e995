# SPDX-License-Identifier: MIT
"""Makes gRPC calls with grpcio, for test_serve_grpc.py: `grpc_client.py PORT PROTO FOLDER`. A line of standard input
is a call as JSON; the answer is a line of standard output. `times` calls are made at once; then the answer is a
list."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health_pb2
from grpc_tools import protoc

PORT, PROTO, FOLDER = sys.argv[1:]
includes = str(resources.files("grpc_tools") / "_proto")
if protoc.main(["protoc", f"-I{includes}", f"-I{PROTO}", f"--python_out={FOLDER}", "ratelimit.proto"]) != 0:
    sys.exit("protoc failed")
sys.path.insert(0, FOLDER)
import ratelimit_pb2  # noqa: E402 # it was made just now

SHOULD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
CHECK = "/grpc.health.v1.Health/Check"
MESSAGES = {
    SHOULD: (ratelimit_pb2.RateLimitRequest, ratelimit_pb2.RateLimitResponse),
    CHECK: (health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse),
}


def call(channel, asked):
    path = asked.get("path", SHOULD)
    request, response = MESSAGES.get(path, MESSAGES[SHOULD])
    if "hex" in asked:
        message = bytes.fromhex(asked["hex"])
    else:
        message = json_format.ParseDict(asked["request"], request()).SerializeToString()
    method = channel.unary_unary(path, request_serializer=None, response_deserializer=response.FromString)
    compression = grpc.Compression.Gzip if asked.get("compressed") else None
    try:
        answer = method(message, timeout=asked.get("timeout", 60), compression=compression)
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details()}
    return {"code": "OK", "response": json_format.MessageToDict(answer, preserving_proto_field_name=True)}


def main():
    pool = ThreadPoolExecutor(100)
    with grpc.insecure_channel(f"127.0.0.1:{PORT}") as channel:
        for line in sys.stdin:
            asked = json.loads(line)
            answers = list(pool.map(lambda _: call(channel, asked), range(asked.get("times", 1))))
            print(json.dumps(answers if "times" in asked else answers[0]), flush=True)


main()
