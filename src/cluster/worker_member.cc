#include "cluster/worker_member.h"

#include <algorithm>

namespace tessera::cluster {

WorkerMember::WorkerMember(WorkerMemberOptions options, MemberHost& host, MemberLink& link,
                           Executor& executor, const Clock& clock, std::function<void(Status)> on_ended)
    : options_(std::move(options)),
      host_(host),
      link_(link),
      executor_(executor),
      clock_(clock),
      on_ended_(std::move(on_ended)) {}

WorkerMember::~WorkerMember() {
  executor_.cancel(beat_timer_);
  executor_.cancel(orphan_timer_);
}

Hello WorkerMember::hello() const {
  Hello hello;
  hello.protocol = options_.protocol;
  hello.worker = options_.worker;
  hello.incarnation = options_.incarnation;
  hello.version = options_.version;
  hello.address = options_.address;
  hello.capabilities = options_.capabilities;
  hello.instances = host_.reports();
  hello.engine = host_.engine();
  return hello;
}

void WorkerMember::receive(ControlMessage message) {
  executor_.post([this, message = std::move(message)] {
    if (ended_) return;
    std::visit(
        [this](const auto& m) {
          if constexpr (requires { this->on(m); }) on(m);
        },
        message);
  });
}

void WorkerMember::disconnected() {
  executor_.post([this] {
    if (!connected_) return;
    connected_ = false;
    executor_.cancel(beat_timer_);
    orphan_timer_ =
        executor_.post_after(options_.orphan_timeout, [this] { host_.forget_sessions(welcome_.gateway); });
  });
}

void WorkerMember::instances_changed() {
  executor_.post([this] {
    if (connected_) beat();
    end_if_empty();
  });
}

void WorkerMember::drain() {
  executor_.post([this] {
    draining_ = true;
    if (connected_) beat();
  });
}

void WorkerMember::on(const Welcome& welcome) {
  executor_.cancel(orphan_timer_);
  const bool other_gateway = welcome_.incarnation != 0 && (welcome_.incarnation != welcome.incarnation ||
                                                           welcome_.gateway != welcome.gateway);
  if (other_gateway) host_.forget_sessions(welcome_.gateway);
  welcome_ = welcome;
  connected_ = true;
  beat();
}

void WorkerMember::beat() {
  Heartbeat heartbeat;
  heartbeat.lease = welcome_.lease;
  heartbeat.number = ++beats_;
  heartbeat.draining = draining_;
  heartbeat.instances = host_.reports();
  heartbeat.links = host_.links();
  heartbeat.engine = host_.engine();
  if (gateway_rtt_s_ > 0) heartbeat.links.push_back({std::string(kGatewayPeer), gateway_rtt_s_, 0});
  beat_at_ = clock_.now();
  link_.send(std::move(heartbeat));
  executor_.cancel(beat_timer_);
  beat_timer_ =
      executor_.post_after(std::chrono::milliseconds(std::max(welcome_.lease_ms / 3, 1)), [this] { beat(); });
}

void WorkerMember::on(const HeartbeatAck& ack) {
  if (ack.number != beats_) return;
  const double rtt = std::chrono::duration<double>(clock_.now() - beat_at_).count();
  gateway_rtt_s_ = gateway_rtt_s_ == 0 ? rtt : 0.7 * gateway_rtt_s_ + 0.3 * rtt;
}

void WorkerMember::on(const UnloadInstance& unload) {
  host_.unload(unload.id);
}

void WorkerMember::on(const Drain&) {
  draining_ = true;
  told_to_go_ = true;
  end_if_empty();
}

void WorkerMember::end_if_empty() {
  if (!told_to_go_ || ended_) return;
  const std::vector<InstanceReport> reports = host_.reports();
  if (std::any_of(reports.begin(), reports.end(),
                  [](const InstanceReport& r) { return r.state != InstanceState::kUnloaded; }))
    return;
  if (const auto engine = host_.engine(); engine && engine->held > 0) return;
  ended_ = true;
  executor_.cancel(beat_timer_);
  on_ended_(Status());
}

void WorkerMember::on(const Goodbye& goodbye) {
  connected_ = false;
  executor_.cancel(beat_timer_);
  if (!goodbye.final) {
    link_.reconnect();
    return;
  }
  ended_ = true;
  on_ended_(Status(Code::kPermissionDenied, goodbye.reason));
}

}  // namespace tessera::cluster
