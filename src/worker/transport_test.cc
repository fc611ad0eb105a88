#include "worker/transport.h"

#include <gtest/gtest.h>

namespace tessera::worker {
namespace {

struct FakeUplink : Uplink {
  struct Sent {
    std::string to, address;
    Message message;
  };
  std::vector<Sent> gateway, peers;
  bool room = true;
  bool send_to_gateway(const std::string& inbox, Message message) override {
    gateway.push_back({inbox, "", std::move(message)});
    return true;
  }
  bool send_to_peer(const std::string&, const std::string& address, const std::string& inbox,
                    Message message) override {
    if (room) peers.push_back({inbox, address, std::move(message)});
    return room;
  }
};

struct FakeEngine : cluster::Inbox {
  std::vector<Message> got;
  bool willing = true;
  bool deliver(Message message) override {
    if (willing) got.push_back(std::move(message));
    return willing;
  }
};

class WorkerTransportTest : public ::testing::Test {
 protected:
  WorkerTransportTest() : transport_("w1", uplink_) { transport_.add("w1/a", engine_); }
  void open(SessionId session, Epoch epoch = 1, const std::string& gateway = "g/m") {
    OpenSession open;
    open.session = session;
    open.epoch = epoch;
    open.gateway = gateway;
    open.route = std::make_shared<const Route>(Route{{"w1/a", {0, 2}}, {"w2/b", {2, 4}, {}, "10.0.0.2:7"}});
    transport_.from_gateway("w1/a", open);
  }
  static Rows rows(SessionId session) {
    Rows rows;
    rows.session = session;
    rows.epoch = 1;
    return rows;
  }

  FakeUplink uplink_;
  FakeEngine engine_;
  WorkerTransport transport_;
};

TEST_F(WorkerTransportTest, EachMessageFindsItsWay) {
  open(5);
  ASSERT_EQ(engine_.got.size(), 1u);
  transport_.send("w2/b", rows(5));
  ASSERT_EQ(uplink_.peers.size(), 1u);
  EXPECT_EQ(uplink_.peers[0].address, "10.0.0.2:7");
  transport_.send("g/m", Opened{5, 1, 0, 0, 0});
  ASSERT_EQ(uplink_.gateway.size(), 1u);
  EXPECT_EQ(uplink_.gateway[0].to, "g/m");
  transport_.send("w1/a", rows(5));  // two hops of one route on one worker
  EXPECT_EQ(engine_.got.size(), 2u);
}

TEST_F(WorkerTransportTest, WhatCannotBeDeliveredIsToldToTheGateway) {
  open(5);
  uplink_.room = false;
  transport_.send("w2/b", rows(5));
  ASSERT_EQ(uplink_.gateway.size(), 1u);
  ASSERT_NE(std::get_if<Failed>(&uplink_.gateway[0].message), nullptr);
  EXPECT_EQ(std::get<Failed>(uplink_.gateway[0].message).peer, "w2/b");
  EXPECT_GE(std::get<Failed>(uplink_.gateway[0].message).hop, 0) << "the wire refuses less";
  EXPECT_EQ(std::get<Failed>(uplink_.gateway[0].message).reason.code(), Code::kUnavailable);
  transport_.undelivered("w2/b", rows(5), unavailable("connection refused"));
  EXPECT_EQ(uplink_.gateway.size(), 2u);
  OpenSession elsewhere;
  elsewhere.session = 6;
  elsewhere.gateway = "g/m";
  transport_.from_gateway("w1/gone", elsewhere);
  ASSERT_EQ(uplink_.gateway.size(), 3u);
  EXPECT_EQ(std::get<Refused>(uplink_.gateway[2].message).reason.code(), Code::kUnavailable);
  engine_.willing = false;
  open(7);
  EXPECT_EQ(std::get<Refused>(uplink_.gateway[3].message).reason.code(), Code::kResourceExhausted);
}

TEST_F(WorkerTransportTest, APeerMaySendRowsAndTokensOnly) {
  transport_.from_peer("w1/a", rows(5));
  transport_.from_peer("w1/a", CloseSession{5, 9});
  transport_.from_peer("w1/a", OpenSession{});
  EXPECT_EQ(engine_.got.size(), 1u);
}

TEST_F(WorkerTransportTest, RowsThatAnEngineDoesNotTakeBreakTheSession) {
  open(5);
  engine_.willing = false;
  transport_.from_peer("w1/a", rows(5));
  ASSERT_EQ(uplink_.gateway.size(), 1u);
  EXPECT_NE(std::get_if<Failed>(&uplink_.gateway[0].message), nullptr);
  transport_.from_peer("w1/a", rows(99));  // of a session that is not open here: nobody to tell
  EXPECT_EQ(uplink_.gateway.size(), 1u);
}

TEST_F(WorkerTransportTest, SessionsOfALostGatewayAreClosed) {
  open(5);
  open(6, 3);
  open(7, 1, "other/m");
  transport_.from_gateway("w1/a", CloseSession{5, 1});
  EXPECT_EQ(transport_.open_sessions(), 2u);
  engine_.got.clear();
  transport_.forget_sessions("g");
  ASSERT_EQ(engine_.got.size(), 1u);
  EXPECT_EQ(session_of(engine_.got[0]), 6u);
  EXPECT_EQ(std::get<CloseSession>(engine_.got[0]).epoch, 3u);
  EXPECT_EQ(transport_.open_sessions(), 1u);
}

}  // namespace
}  // namespace tessera::worker
