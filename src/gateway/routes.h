// What the gateway answers over HTTP is a table of routes. HttpFront alone reads it, and alone decides who
// may come in: a handler is never reached by somebody whose role is less than its route's.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/caller.h"
#include "api/service.h"
#include "net/http.h"

namespace tessera::gateway {

enum class Access {
  kOpen,    // without a key: probes, and the login itself
  kClient,  // anybody with a key; the rest as api::Role
  kViewer,
  kOperator,
  kAdmin
};

// One request on its way to its answer; cheap to copy.
struct Call {
  std::shared_ptr<const net::HttpRequest> request;
  std::shared_ptr<net::ResponseWriter> writer;
  // Metrics and the log: who answers through `writer` himself must call on_end() at the end.
  std::shared_ptr<api::CompletionObserver> record;
  api::CallerPtr caller;                // null on open routes
  std::vector<std::string> parameters;  // what stood at the path's {…}, in order

  // Once, from any thread.
  void answer(net::HttpResponse response) const;
};

struct Route {
  std::string method;
  std::string path;  // "/api/v1/admin/enterprises/{id}"; the last part may be "{name...}": the rest
  Access access = Access::kAdmin;
  std::function<void(const Call&)> run;  // must not block
  bool quiet = false;                    // logged at debug
  bool work = false;                     // refused while draining
  bool audited = false;                  // though it needs no role above a client's
};

// A part of the API. Thread-safe.
class RouteGroup {
 public:
  virtual ~RouteGroup() = default;
  virtual std::vector<Route> routes() = 0;
};

// Immutable; thread-safe. GET routes answer HEAD, too.
class RouteTable {
 public:
  // Two routes of the same method and path, or a path that is no pattern, are our own bug.
  explicit RouteTable(std::vector<Route> routes);

  struct Match {
    const Route* route = nullptr;  // null: nothing there, or not with this method
    std::string path;              // the pattern; empty: nothing there
    std::vector<std::string> parameters;
    std::string allow;  // the methods that the path takes
    bool open = false;  // all that it answers is: then a wrong method, too, needs no key
  };
  Match find(const std::string& method, const std::string& path) const;
  const std::vector<Route>& all() const { return routes_; }

 private:
  struct Path {
    std::string pattern;
    std::vector<std::string> parts;  // of the pattern
    std::vector<size_t> routes;
  };
  Match match(const Path& path, const std::string& method) const;
  static std::optional<std::vector<std::string>> parameters_of(const Path& path, std::string_view text);

  std::vector<Route> routes_;
  std::vector<Path> paths_;
  std::map<std::string, size_t, std::less<>> plain_;  // paths without parameters
};

}  // namespace tessera::gateway
