#include "gateway/routes.h"

namespace tessera::gateway {
namespace {

bool is_parameter(const std::string& part) {
  return part.starts_with('{') && part.ends_with('}');
}
bool takes_rest(const std::string& part) {
  return is_parameter(part) && part.ends_with("...}");
}

// "/a/{id}" → "a", "{id}".
std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> parts;
  TESSERA_CHECK(path.starts_with('/'), "a route's path begins with '/'");
  for (size_t begin = 1; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    parts.emplace_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

void Call::answer(net::HttpResponse response) const {
  const int status = response.status;
  writer->send(std::move(response));
  record->on_end(status, {});
}

RouteTable::RouteTable(std::vector<Route> routes) : routes_(std::move(routes)) {
  for (size_t i = 0; i < routes_.size(); ++i) {
    const Route& route = routes_[i];
    auto known = std::find_if(paths_.begin(), paths_.end(),
                              [&](const Path& path) { return path.pattern == route.path; });
    if (known == paths_.end()) {
      paths_.push_back({route.path, split(route.path), {}});
      known = paths_.end() - 1;
      const bool plain = std::none_of(known->parts.begin(), known->parts.end(), is_parameter);
      if (plain) plain_[route.path] = paths_.size() - 1;
    }
    for (const size_t other : known->routes)
      TESSERA_CHECK(routes_[other].method != route.method, "two routes of one method and path");
    known->routes.push_back(i);
  }
}

std::optional<std::vector<std::string>> RouteTable::parameters_of(const Path& path, std::string_view text) {
  std::vector<std::string> parameters;
  size_t begin = 1;
  for (const std::string& part : path.parts) {
    if (begin > text.size()) return std::nullopt;
    const size_t end = takes_rest(part) ? text.size() : std::min(text.find('/', begin), text.size());
    const std::string_view given = text.substr(begin, end - begin);
    if (is_parameter(part)) {
      if (given.empty()) return std::nullopt;
      parameters.emplace_back(given);
    } else if (given != part) {
      return std::nullopt;
    }
    begin = end + 1;
  }
  if (begin <= text.size()) return std::nullopt;
  return parameters;
}

RouteTable::Match RouteTable::match(const Path& path, const std::string& method) const {
  Match match;
  match.path = path.pattern;
  match.open = true;
  for (const size_t index : path.routes) {
    const Route& route = routes_[index];
    if (route.method == method || (method == "HEAD" && route.method == "GET")) match.route = &route;
    match.open = match.open && route.access == Access::kOpen;
    match.allow += (match.allow.empty() ? "" : ", ") + route.method;
  }
  return match;
}

RouteTable::Match RouteTable::find(const std::string& method, const std::string& path) const {
  if (const auto plain = plain_.find(path); plain != plain_.end())
    return match(paths_[plain->second], method);
  for (const Path& candidate : paths_) {
    auto parameters = parameters_of(candidate, path);
    if (!parameters) continue;
    Match found = match(candidate, method);
    found.parameters = std::move(*parameters);
    return found;
  }
  return {};
}

}  // namespace tessera::gateway
