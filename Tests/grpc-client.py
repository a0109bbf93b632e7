"""What a user's pipeline would do in Python: python grpc-client.py ADMIN WORKER, each host:port."""

import json
import sys
import time

import grpc
import coordinator_pb2
import coordinator_pb2_grpc
import rollouts_pb2
import rollouts_pb2_grpc
import worker_pb2
import worker_pb2_grpc

admin, worker = (grpc.insecure_channel(address) for address in sys.argv[1:3])
rollouts = rollouts_pb2_grpc.RolloutsStub(admin)
Request = rollouts_pb2.CommandRequest


def refused(call, request, code, part):
    try:
        call(request, timeout=5)
    except grpc.RpcError as error:
        assert error.code() == code and part in error.details(), (error.code(), error.details())
    else:
        raise AssertionError(f"was not refused: {request}")


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
print(f"grpc: rolled out in {len(history)} lines of history")
