// What workers and gateways say to each other about membership and about who hosts what. Plain values; `wire`
// encodes them on the worker's control stream, tests/sim hands them over directly.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/engine_messages.h"
#include "core/types.h"

namespace tessera {

// Protocol versions that this build speaks. Two peers use the highest that both speak; without one, the
// younger side refuses with a sentence that names both ranges.
struct ProtocolRange {
  int lowest = 1;
  int highest = 1;
  bool operator==(const ProtocolRange&) const = default;
};

// A block range of a model, loaded or loading on a worker. Its inbox in the transport is "WORKER/ID".
enum class InstanceState : uint8_t { kFetching, kLoading, kReady, kFailed, kUnloaded };
struct InstanceReport {
  std::string id;
  std::string model;  // ModelCard::name
  BlockRange blocks;
  InstanceState state = InstanceState::kFetching;
  std::string error;      // kFailed: one sentence
  std::string numerics;   // NumericsClass::to_string()
  int64_t kv_tokens = 0;  // room in all
  int64_t kv_tokens_free = 0;
  int running = 0;                                     // open sessions
  int64_t tokens_replayed = 0, tokens_recomputed = 0;  // failover, since the instance started
  double decode_step_s = 0;                            // observed, moving average; 0 = not yet
  double prefill_token_s = 0;
  uint64_t bytes_fetched = 0;  // while kFetching
  uint64_t bytes_total = 0;
};

// Measured by a worker to a peer.
inline constexpr std::string_view kGatewayPeer = "gateway";
struct LinkReport {
  std::string peer;  // worker, or kGatewayPeer
  double rtt_s = 0;
  double bytes_per_s = 0;  // 0 = unknown
};

// Measured by the worker with its own kernels before it joins.
struct WorkerCapabilities {
  uint64_t memory_bytes = 0;      // for weights and KV
  double decode_bytes_per_s = 0;  // weight bytes that one-row matmuls read
  double prefill_ops_per_s = 0;   // multiply-adds × 2 of many-row matmuls
  int threads = 0;
  std::string device;                       // "CPU, AVX2, 2 threads"
  std::string numerics;                     // class without the model's part: "cpu/int8.1"
  std::optional<BlockRange> pinned_blocks;  // --blocks: this range and no other
  std::string pinned_model;                 // of pinned_blocks; empty: any
};

// Worker → gateway, first on every control stream.
struct Hello {
  ProtocolRange protocol;
  std::string worker;        // identity: the name in its certificate
  uint64_t incarnation = 0;  // drawn when the process starts: a restart is told from a reconnection
  std::string version;       // of the program
  std::string address;       // "HOST:PORT[,…]" of its data plane; empty: reached through the gateway only
  WorkerCapabilities capabilities;
  std::vector<InstanceReport> instances;    // what it hosts already (reconnection)
  std::optional<EngineReport> engine = {};  // of a worker that stands for another engine, and hosts no blocks
};

// Gateway → worker, answers Hello.
struct Welcome {
  ProtocolRange protocol;
  std::string gateway;       // inbox prefix of its session managers: "GATEWAY/MODEL"
  uint64_t incarnation = 0;  // of the gateway: after a restart it knows no session of before
  uint64_t lease = 0;        // number of this membership; grows with every attach (invariant I5)
  int lease_ms = 0;          // without a Heartbeat for so long the worker counts as lost
};

// Worker → gateway, three times a lease. Carries whole state: the latest one counts.
struct Heartbeat {
  uint64_t lease = 0;
  uint64_t number = 0;
  bool draining = false;
  std::vector<InstanceReport> instances;
  std::vector<LinkReport> links;
  std::optional<EngineReport> engine = {};
};
struct HeartbeatAck {  // the worker measures its round trip to the gateway by it
  uint64_t number = 0;
};

// Gateway → worker: host this. Fetches what is missing, loads, reports kReady or kFailed in a Heartbeat at
// once.
struct LoadInstance {
  std::string id;
  std::string model;
  BlockRange blocks;
  uint64_t kv_bytes = 0;
  int context_length = 0;
  std::string load_options;  // JSON object: dtype, quantize, kv_dtype of the model
  // Who else holds these tensors, nearest first: addresses of workers; the gateway is always asked last.
  std::vector<std::string> peers;
};
// Sessions on it fail over first (the gateway has moved or closed them).
struct UnloadInstance {
  std::string id;
};
// The worker stops as soon as it hosts no session; the gateway moves them.
struct Drain {};
// The gateway refuses or ends the membership.
struct Goodbye {
  std::string reason;
  bool final = false;  // the worker must not come back with this identity
};
// Either way: measure the link to a peer (answered by LinkReport in the next Heartbeat).
struct ProbePeer {
  std::string peer;
  std::string address;
};

using ControlMessage = std::variant<Hello, Welcome, Heartbeat, HeartbeatAck, LoadInstance, UnloadInstance,
                                    Drain, Goodbye, ProbePeer>;

}  // namespace tessera
