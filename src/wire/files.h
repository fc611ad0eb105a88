// Model files over the wire: a gateway and every worker serve them, workers read them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "wire/certificates.h"
#include "wire/link_options.h"
#include "wire/live_identity.h"
#include "wire/relay.h"

namespace tessera::wire {

constexpr uint64_t kFileChunkBytes = 256 << 10;

// Serves files; called on the server's own threads, several at a time, and may wait for a disk.
class FileHandler {
 public:
  virtual ~FileHandler() = default;
  // Exactly `length` bytes at `offset` (length <= kFileChunkBytes), for a peer of that name. NotFound and
  // InvalidArgument (beyond the end) are told to the peer.
  virtual Result<std::string> read_file(const std::string& peer, const std::string& model,
                                        const std::string& file, uint64_t offset, uint64_t length) = 0;
  virtual Result<std::string> manifest(const std::string& peer, const std::string& model) = 0;  // JSON
};

// One process that serves files. Thread-safe; calls wait, and end by their deadlines.
class RemoteFiles {
 public:
  // `addresses`: "HOST:PORT,…", tried in order, or "relay:WORKER"; `expected_name`: the worker's name, or
  // kGatewayDnsName. `relay` as for PeerLinks.
  static Result<std::unique_ptr<RemoteFiles>> open(std::string_view addresses, const LiveIdentity& identity,
                                                   const std::string& expected_name,
                                                   const LinkOptions& options = {},
                                                   RelayClient* relay = nullptr);
  virtual ~RemoteFiles() = default;

  // Hands over the bytes [offset, offset + length) in order, each call at most kFileChunkBytes. An error of
  // `sink` stops the transfer and is returned; kCorrupt when the peer sends less or more than was asked for.
  // Without a new chunk for `stall` it ends with DeadlineExceeded.
  using Sink = std::function<Status(std::string_view bytes)>;
  virtual Status read(const std::string& model, const std::string& file, uint64_t offset, uint64_t length,
                      const Sink& sink, std::chrono::milliseconds stall) = 0;
  virtual Result<std::string> manifest(const std::string& model, std::chrono::milliseconds deadline) = 0;
};

}  // namespace tessera::wire
