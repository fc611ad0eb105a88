#include "cluster/worker_member.h"

#include <gtest/gtest.h>

#include "cluster/manual_executor.h"

namespace tessera::cluster {
namespace {

using namespace std::chrono_literals;

struct FakeHost : MemberHost {
  std::vector<InstanceReport> hosted;
  std::vector<std::string> forgotten, unloaded, probed;
  void load(const LoadInstance& load) override {
    InstanceReport report;
    report.id = load.id;
    hosted.push_back(report);
  }
  void unload(const std::string& id) override { unloaded.push_back(id); }
  void forget_sessions(const std::string& gateway) override { forgotten.push_back(gateway); }
  void probe(const ProbePeer& peer) override { probed.push_back(peer.peer); }
  std::vector<InstanceReport> reports() const override { return hosted; }
  std::vector<LinkReport> links() const override { return {{"w2", 0.5, 1e6}}; }
};

struct FakeLink : MemberLink {
  std::vector<Heartbeat> beats;
  int reconnects = 0;
  void send(ControlMessage message) override { beats.push_back(std::get<Heartbeat>(message)); }
  void reconnect() override { ++reconnects; }
};

class WorkerMemberTest : public ::testing::Test {
 protected:
  WorkerMemberTest()
      : member_(options(), host_, link_, executor_, executor_,
                [this](Status why) { ended_.push_back(why); }) {}
  static WorkerMemberOptions options() {
    WorkerMemberOptions options;
    options.worker = "w1";
    options.incarnation = 9;
    return options;
  }
  void welcome(uint64_t gateway_incarnation, uint64_t lease) {
    member_.receive(Welcome{{}, "gateway", gateway_incarnation, lease, 900});
    executor_.run();
  }

  ManualExecutor executor_;
  FakeHost host_;
  FakeLink link_;
  std::vector<Status> ended_;
  WorkerMember member_;
};

TEST_F(WorkerMemberTest, BeatsThreeTimesALeaseWithTheWholeState) {
  welcome(1, 5);
  executor_.advance(900ms);
  ASSERT_EQ(link_.beats.size(), 4u);
  EXPECT_EQ(link_.beats[3].lease, 5u);
  EXPECT_EQ(link_.beats[3].number, 4u);
  executor_.advance(10ms);
  member_.receive(HeartbeatAck{4});
  executor_.run();
  member_.receive(LoadInstance{"i1", "m", {0, 2}, 0, 0, "", {}});
  executor_.run();
  member_.instances_changed();
  executor_.run();
  const Heartbeat& last = link_.beats.back();
  ASSERT_EQ(last.instances.size(), 1u) << "a change is told at once";
  ASSERT_EQ(last.links.size(), 2u);
  EXPECT_EQ(last.links[1].peer, "gateway");
  EXPECT_NEAR(last.links[1].rtt_s, 0.01, 1e-9);
  EXPECT_EQ(member_.hello().instances.size(), 1u);
}

TEST_F(WorkerMemberTest, SessionsOfAGatewayThatRestartedOrStaysAwayAreForgotten) {
  welcome(1, 5);
  member_.disconnected();
  executor_.advance(10s);
  welcome(1, 6);  // the same one: its sessions may go on
  EXPECT_TRUE(host_.forgotten.empty());
  executor_.advance(200s);
  EXPECT_TRUE(host_.forgotten.empty()) << "connected";
  welcome(2, 1);  // it restarted
  EXPECT_EQ(host_.forgotten, (std::vector<std::string>{"gateway"}));
  const size_t beats = link_.beats.size();
  member_.disconnected();
  executor_.advance(121s);
  EXPECT_EQ(host_.forgotten.size(), 2u);
  EXPECT_EQ(link_.beats.size(), beats) << "nobody hears them";
}

TEST_F(WorkerMemberTest, LeavesWhenItHostsNothingMore) {
  welcome(1, 5);
  host_.hosted.resize(1);
  member_.drain();
  executor_.run();
  EXPECT_TRUE(link_.beats.back().draining);
  member_.receive(Drain{});
  executor_.run();
  EXPECT_TRUE(ended_.empty());
  member_.receive(UnloadInstance{"i1"});
  executor_.run();
  EXPECT_EQ(host_.unloaded.size(), 1u);
  host_.hosted.clear();
  member_.instances_changed();
  executor_.run();
  ASSERT_EQ(ended_.size(), 1u);
  EXPECT_TRUE(ended_[0].ok());
}

TEST_F(WorkerMemberTest, AGoodbyeIsForNowOrForGood) {
  welcome(1, 5);
  member_.receive(Goodbye{"the lease ended", false});
  executor_.run();
  EXPECT_EQ(link_.reconnects, 1);
  EXPECT_TRUE(ended_.empty());
  welcome(1, 6);
  member_.receive(ProbePeer{"w2", "10.0.0.2:1"});
  member_.receive(Goodbye{"expelled", true});
  executor_.run();
  EXPECT_EQ(host_.probed.size(), 1u);
  ASSERT_EQ(ended_.size(), 1u);
  EXPECT_EQ(ended_[0].code(), Code::kPermissionDenied);
  const size_t beats = link_.beats.size();
  executor_.advance(10s);
  EXPECT_EQ(link_.beats.size(), beats);
}

}  // namespace
}  // namespace tessera::cluster
