"""What users would do in Python: python grpc-client.py ADMIN WORKER PUBLIC, each host:port."""

import json
import sys
import time
import urllib.request

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf import message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
import coordinator_pb2
import coordinator_pb2_grpc
import ranking_pb2
import ranking_pb2_grpc
import rollouts_pb2
import rollouts_pb2_grpc
import worker_pb2
import worker_pb2_grpc

admin, worker, public = (grpc.insecure_channel(address) for address in sys.argv[1:4])
rollouts = rollouts_pb2_grpc.RolloutsStub(admin)
Request = rollouts_pb2.CommandRequest


def refused(call, request, code, part):
    try:
        call(request, timeout=5)
    except grpc.RpcError as error:
        assert error.code() == code and part in error.details(), (error.code(), error.details())
    else:
        raise AssertionError(f"was not refused: {request}")


# The same answer as in JSON, and the same refusals.
def in_json(path, body):
    request = urllib.request.Request(f"http://{sys.argv[3]}/v1/{path}", json.dumps(body).encode())
    return json.load(urllib.request.urlopen(request))


def same(reply, answer):
    items = [(item.id, item.score) for item in reply.items]
    wanted = [(item["id"], item["score"]) for item in answer["items"]]
    assert [id for id, _ in items] == [id for id, _ in wanted], (items, wanted)
    assert all(abs(a - b) <= 1e-6 * abs(b) for (_, a), (_, b) in zip(items, wanted)), (items, wanted)
    assert (reply.model, reply.version, reply.candidates) == (answer["model"], answer["version"], answer["candidates"])
    assert reply.coverage.answered == reply.coverage.shards == answer["coverage"]["shards"], reply
    assert list(reply.unknown) == answer.get("unknown", []), reply


ranking = ranking_pb2_grpc.RankingStub(public)
R = ranking_pb2
reply = ranking.Recommend(
    R.RecommendRequest(user="u7", k=5, exclude_seen=True, exclude=["i3"]), timeout=5,
    metadata=[("x-request-id", "python-1")])
assert reply.request_id == "python-1" and not reply.cold_start and len(reply.items) == 5, reply
same(reply, in_json("recommend", {"user": "u7", "k": 5, "exclude_seen": True, "exclude": ["i3"]}))
vector = [0.5, -0.25, 0, 0, 1, 0, 0, 2]
same(ranking.Recommend(R.RecommendRequest(vector=R.Vector(values=vector), min_score=0.0, explain=True), timeout=5),
     in_json("recommend", {"vector": vector, "min_score": 0, "explain": True}))
same(ranking.Recommend(
        R.RecommendRequest(recent_items=R.ItemIDs(ids=["i1", "i2"]), mmr=R.MarginalRelevance(**{"lambda": 0.5}),
                           candidates=50, priority=R.BATCH, sticky=True, session="s", timeout_ms=4000), timeout=5),
     in_json("recommend", {"recent_items": ["i1", "i2"], "mmr": {"lambda": 0.5}, "candidates": 50}))
same(ranking.Rank(R.RankRequest(user="u1", items=["i5", "nothing", "i9"]), timeout=5),
     in_json("rank", {"user": "u1", "items": ["i5", "nothing", "i9"]}))
same(ranking.Similar(R.SimilarRequest(item="i4", k=3), timeout=5), in_json("similar", {"item": "i4", "k": 3}))

for request, field, part in [
    (R.RecommendRequest(user="u1", k=0), "k", "1 to 1000"),
    (R.RecommendRequest(user="u1", timeout_ms=0.5), "timeout_ms", "1.0 to 60000.0"),
    (R.RecommendRequest(user="u1", exclude=[""]), "exclude[0]", "a text of 1 to"),
    (R.RecommendRequest(user="u1", filter=R.Filter(all=R.Filters(filters=[R.Filter()]))), "filter.all[0]", "one of"),
    (R.RecommendRequest(user="u1", context={"hour": R.Value()}), "context.hour", "a number, a text or a boolean"),
]:
    try:
        ranking.Recommend(request, timeout=5)
        raise AssertionError(f"was not refused: {request}")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and part in error.details(), error
        details = error_details_pb2.BadRequest()
        assert rpc_status.from_call(error).details[0].Unpack(details), error
        assert details.field_violations[0].field == field, details
refused(ranking.Recommend, R.RecommendRequest(k=3), grpc.StatusCode.INVALID_ARGUMENT, "exactly one of")
refused(ranking.Recommend, R.RecommendRequest(user="u1", model="shop"), grpc.StatusCode.NOT_FOUND, "shop")
refused(ranking.Recommend, R.RecommendRequest(user="u" * (2 << 20)), grpc.StatusCode.RESOURCE_EXHAUSTED, "longer")
try:
    ranking.Recommend(
        R.RecommendRequest(user="u1", exclude=["i1"] * 500), timeout=5, compression=grpc.Compression.Gzip)
    raise AssertionError("a compressed message was not refused")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED and "compressed" in error.details(), error
# Probes: asked once, and watched.
Check = health_pb2.HealthCheckRequest
for channel, service in [
    (public, ""), (public, "shortlist.v1.Ranking"), (admin, "shortlist.v1.Rollouts"), (worker, "shortlist.v1.Worker"),
]:
    reply = health_pb2_grpc.HealthStub(channel).Check(Check(service=service), timeout=5)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING, (service, reply)
refused(health_pb2_grpc.HealthStub(public).Check, Check(service="nothing"), grpc.StatusCode.NOT_FOUND, "nothing")
watch = health_pb2_grpc.HealthStub(public).Watch(Check(service="nothing"), timeout=5)
assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
watch.cancel()

# By reflection alone: a client that was given no .proto.
database = ProtoReflectionDescriptorDatabase(public)
assert sorted(database.get_services()) == sorted([
    "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
    "shortlist.v1.Ranking"]), database.get_services()
method = DescriptorPool(database).FindServiceByName("shortlist.v1.Ranking").FindMethodByName("Similar")
Question, Answer = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
similar = public.unary_unary(
    "/shortlist.v1.Ranking/Similar", request_serializer=Question.SerializeToString,
    response_deserializer=Answer.FromString)
assert len(similar(Question(item="i4", k=3), timeout=5).items) == 3
try:
    database.FindFileContainingSymbol("shop.v1.Nothing")
    raise AssertionError("an unknown symbol was found")
except KeyError:
    pass
assert "shortlist.v1.Worker" in ProtoReflectionDescriptorDatabase(worker).get_services()

status = worker_pb2_grpc.WorkerStub(worker).Status(worker_pb2.StatusRequest(), timeout=5)
assert status.name == "w1" and status.holdings[0].model == "home" and status.holdings[0].ready, status
report = coordinator_pb2_grpc.CoordinatorStub(admin).Traffic(coordinator_pb2.TrafficRequest(), timeout=5)
assert [version.version for version in report.versions] == ["v1"], report

state = rollouts.State(rollouts_pb2.StateRequest(), timeout=5)
assert state.drives and [(m.model, m.serving) for m in state.models] == [("home", "v1")], state
refused(rollouts.Command, Request(action=0, model="home"), grpc.StatusCode.INVALID_ARGUMENT, "action is 0")
refused(rollouts.Command, Request(action=Request.PAUSE, model="home", who="ada"), grpc.StatusCode.NOT_FOUND, "paused")
refused(
    rollouts.Command, Request(action=Request.START, model="home", version="v1", who="ada"),
    grpc.StatusCode.FAILED_PRECONDITION, "is the serving version already")
refused(rollouts.Command, Request(action=Request.START, model="shop", version="v2", who="ada"), grpc.StatusCode.NOT_FOUND, "shop")
refused(
    rollouts.Command,
    Request(action=Request.START, model="home", version="v2", who="ada", settings_json='{"colour": 1}'),
    grpc.StatusCode.INVALID_ARGUMENT, "colour")
refused(rollouts.History, rollouts_pb2.HistoryRequest(limit=513), grpc.StatusCode.INVALID_ARGUMENT, "")

stage = {"min_time_ms": 50, "min_sample": 0}
settings = {"shadow": stage, "canary": stage, "retire": {"min_time_ms": 50}, "canary_steps": [10000]}
entry = rollouts.Command(
    Request(action=Request.START, model="home", version="v2", who="ada", settings_json=json.dumps(settings)), timeout=5)
assert entry.who == "ada" and entry.to == "load" and entry.version == "v2" and entry.sequence == 2, entry
while True:
    state = rollouts.State(rollouts_pb2.StateRequest(), timeout=5)
    model = state.models[0]
    if model.HasField("last") and model.last.id == entry.rollout:
        break
    assert model.rollout.id == entry.rollout and model.rollout.to == "v2", model
    time.sleep(0.02)
assert model.last.outcome == "done" and model.serving == "v2", model
history = rollouts.History(rollouts_pb2.HistoryRequest(), timeout=5).entries
assert [line.sequence for line in history] == list(range(1, len(history) + 1)), history
assert history[-1].to == "done" and history[-1].rollout == entry.rollout, history[-1]
assert rollouts.History(rollouts_pb2.HistoryRequest(**{"from": 3, "limit": 1}), timeout=5).entries[0] == history[2]
# Who watches a worker's health hears that it leaves.
watch = health_pb2_grpc.HealthStub(worker).Watch(Check(service="shortlist.v1.Worker"), timeout=20)
assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
worker_pb2_grpc.WorkerStub(worker).Drain(worker_pb2.DrainRequest(), timeout=5)
assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
try:
    next(watch)
    raise AssertionError("the watch holds up a worker that leaves")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNAVAILABLE and error.details() == "leaving", error

print(f"grpc: rolled out in {len(history)} lines of history")
