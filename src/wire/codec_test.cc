#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <tessera/v1/frame.pb.h>

#include <limits>
#include <random>

#include "wire/codec_samples.h"
#include "wire/protocol.h"

namespace tessera::wire {
namespace {

using ::testing::HasSubstr;
namespace pb = tessera::v1;

std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string encoded(const Message& message) {
  return encode("alpha/1", message, 1);
}

Message decoded_message(const std::string& bytes) {
  auto frame = decode(bytes_of(bytes));
  EXPECT_TRUE(frame.ok()) << frame.status().message();
  return frame.ok() ? std::get<Envelope>(*frame).message : Message();
}

// The frame that pb describes, changed.
template <typename Change>
Status after(const std::string& bytes, Change change) {
  pb::Frame frame;
  EXPECT_TRUE(frame.ParseFromString(bytes));
  change(frame);
  return decode(bytes_of(frame.SerializeAsString())).status();
}

TEST(Codec, EveryMessageComesBackWithEveryField) {
  for (const Message& message : samples::session_messages()) {
    const std::string bytes = encoded(message);
    auto frame = decode(bytes_of(bytes));
    ASSERT_TRUE(frame.ok()) << frame.status().message();
    const auto& envelope = std::get<Envelope>(*frame);
    EXPECT_EQ(envelope.to, "alpha/1");
    ASSERT_EQ(envelope.message.index(), message.index());
    EXPECT_EQ(encoded(envelope.message), bytes);
  }
  for (const ControlMessage& message : samples::control_messages()) {
    const std::string bytes = encode(message, 1);
    auto frame = decode(bytes_of(bytes));
    ASSERT_TRUE(frame.ok()) << frame.status().message();
    ASSERT_EQ(std::get<ControlMessage>(*frame).index(), message.index());
    EXPECT_EQ(encode(std::get<ControlMessage>(*frame), 1), bytes);
  }
}

TEST(Codec, EveryMessageOfAnEngineComesBackWithEveryField) {
  for (const EngineMessage& message : samples::engine_messages()) {
    const std::string bytes = encode(message, 1);
    auto frame = decode(bytes_of(bytes));
    ASSERT_TRUE(frame.ok()) << frame.status().message();
    ASSERT_EQ(std::get<EngineMessage>(*frame).index(), message.index());
    EXPECT_EQ(encode(std::get<EngineMessage>(*frame), 1), bytes);
  }
  const std::string end = encode(samples::engine_messages().back(), 1);
  const auto bad = [&](auto change) { return after(end, change).code(); };
  EXPECT_EQ(bad([](auto& f) { f.mutable_engine_end()->set_status(200); }), Code::kCorrupt);
  EXPECT_EQ(bad([](auto& f) { f.mutable_engine_end()->set_prompt_tokens(0xffffffffu); }), Code::kCorrupt);
  const std::string request = encode(samples::engine_messages().front(), 1);
  EXPECT_EQ(after(request, [](auto& f) { f.mutable_engine_request()->set_chat(false); }).code(),
            Code::kCorrupt);
  EXPECT_EQ(after(request, [](auto& f) { f.mutable_engine_request()->set_n(0); }).code(), Code::kCorrupt);
}

// Does not compile when a message has a field more or less: then the wire needs it as well, and the samples.
[[maybe_unused]] void the_codec_knows_these_fields(
    const OpenSession& o, const Hop& h, const StartSession& s, const Rows& r, const Token& t, const Opened& p,
    const Refused& f, const Failed& d, const Hello& e, const WorkerCapabilities& c, const InstanceReport& i,
    const Welcome& w, const Heartbeat& b, const LoadInstance& l, const SamplingParams& q, const LinkReport& k,
    const EngineReport& g, const EngineRequest& x, const EngineDelta& y, const EngineEnd& z) {
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13] = o; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4] = h; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4] = s; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8, a9] = r; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7] = t; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5] = p; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4] = f; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5] = d; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8] = e; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8] = c; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15] = i; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5] = w; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6] = b; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7] = l; }
  {
    [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16] = q;
  }
  { [[maybe_unused]] const auto& [a1, a2, a3] = k; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14] = g; }
  {
    [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17,
                                  a18, a19, a20] = x;
  }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8] = y; }
  { [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8, a9, a10] = z; }
}

// The round trip above compares encodings, so a field that both directions forget would go unseen: no field
// of a sample's body may be unset, but those of later versions.
void expect_all_set(const google::protobuf::Message& message, const std::string& where) {
  const auto* descriptor = message.GetDescriptor();
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const auto* field = descriptor->field(i);
    google::protobuf::SourceLocation unused;
    const std::string name = where + "." + field->name();
    if (field->number() >= 20 || field->name() == "role" || field->name() == "adapters") continue;
    if (field->is_repeated()) {
      EXPECT_GT(reflection->FieldSize(message, field), 0) << name;
      if (field->message_type() != nullptr && reflection->FieldSize(message, field) > 0)
        expect_all_set(
            reflection->GetRepeatedMessage(
                message, field,
                reflection->FieldSize(message, field) > 1 && field->name() == "prompt_logprobs" ? 1 : 0),
            name);
    } else if (field->message_type() != nullptr) {
      EXPECT_TRUE(reflection->HasField(message, field)) << name;
      expect_all_set(reflection->GetMessage(message, field), name);
    } else if (name.find("BlockRange.first") == std::string::npos && field->name() != "first") {
      EXPECT_TRUE(reflection->HasField(message, field)) << name;
    }
  }
}

TEST(Codec, TheSamplesLeaveNoFieldUnset) {
  std::vector<std::string> frames;
  for (const auto& message : samples::session_messages())
    frames.push_back(std::holds_alternative<Rows>(message) ? encoded(samples::rows(RowEncoding::kFp8))
                                                           : encoded(message));
  for (const auto& message : samples::control_messages()) frames.push_back(encode(message, 1));
  for (const auto& bytes : frames) {
    pb::Frame frame;
    ASSERT_TRUE(frame.ParseFromString(bytes));
    const auto* body = frame.GetReflection()->GetOneofFieldDescriptor(
        frame, pb::Frame::GetDescriptor()->FindOneofByName("body"));
    ASSERT_NE(body, nullptr);
    expect_all_set(frame.GetReflection()->GetMessage(frame, body), body->name());
  }
}

TEST(Codec, KeepsTheValuesOfASession) {
  const auto open = std::get<OpenSession>(decoded_message(encoded(samples::open_session())));
  const auto sent = samples::open_session();
  EXPECT_EQ(open.session, sent.session);
  EXPECT_EQ(*open.route, *sent.route);
  EXPECT_EQ(*open.tokens, *sent.tokens);
  EXPECT_EQ(open.params.seed, sent.params.seed);
  EXPECT_EQ(open.params.logit_bias, sent.params.logit_bias);
  EXPECT_EQ(open.salt, sent.salt);
  EXPECT_EQ(open.ticket, sent.ticket);
  const auto rows = std::get<Rows>(decoded_message(encoded(samples::rows())));
  EXPECT_EQ(rows.hidden, samples::rows().hidden);
  EXPECT_EQ(rows.tokens, samples::rows().tokens);
  const auto int8 = std::get<Rows>(decoded_message(encoded(samples::rows(RowEncoding::kInt8))));
  EXPECT_EQ(int8.encoding, RowEncoding::kInt8);
  EXPECT_NEAR(int8.hidden[3], 127.0f, 1e-4f);
}

TEST(Codec, LinkMessagesComeBack) {
  auto hello = decode(bytes_of(encode(LinkMessage(LinkHello{{1, 3}, "beta", 5}), 1)));
  ASSERT_TRUE(hello.ok());
  EXPECT_EQ(std::get<LinkHello>(std::get<LinkMessage>(*hello)).worker, "beta");
  auto ping = decode(bytes_of(encode(LinkMessage(Ping{7, 1000}), 1)));
  ASSERT_TRUE(ping.ok());
  EXPECT_EQ(std::get<Ping>(std::get<LinkMessage>(*ping)).payload_bytes, 1000u);
  auto pong = decode(bytes_of(encode(LinkMessage(Pong{7, 1000}), 1)));
  ASSERT_TRUE(pong.ok());
  EXPECT_EQ(std::get<Pong>(std::get<LinkMessage>(*pong)).number, 7u);
}

TEST(Codec, RefusesWhatDoesNotFit) {
  const float nan = std::nanf("");
  const std::string open = encoded(samples::open_session()), token = encoded(samples::token());
  auto expect_corrupt = [](const Status& status, const char* text) {
    EXPECT_EQ(status.code(), Code::kCorrupt) << text;
    EXPECT_THAT(status.message(), HasSubstr(text));
  };
  expect_corrupt(
      after(open, [&](auto& f) { f.mutable_open_session()->mutable_params()->set_temperature(nan); }),
      "temperature");
  expect_corrupt(after(open, [](auto& f) { f.mutable_open_session()->set_hop(2); }), "hop");
  expect_corrupt(after(open, [](auto& f) { f.mutable_open_session()->set_prompt_tokens(5); }),
                 "prompt_tokens");
  expect_corrupt(after(open, [](auto& f) { f.mutable_open_session()->set_max_length(1); }), "max_length");
  expect_corrupt(after(open, [](auto& f) { f.mutable_open_session()->set_tokens(0, 0xffffffffu); }),
                 "tokens");
  expect_corrupt(
      after(open,
            [](auto& f) { f.mutable_open_session()->mutable_route(1)->mutable_blocks()->set_first(9); }),
      "route");
  expect_corrupt(
      after(open,
            [](auto& f) {
              f.mutable_open_session()->mutable_route(0)->set_encoding(static_cast<pb::RowEncoding>(9));
            }),
      "encoding");
  expect_corrupt(after(open, [](auto& f) { f.mutable_open_session()->set_gateway(std::string(300, 'x')); }),
                 "gateway");
  expect_corrupt(after(open, [](auto& f) { f.clear_to(); }), "to is empty");
  expect_corrupt(after(open, [](auto& f) { f.set_payload("x"); }), "payload");
  expect_corrupt(after(open, [](auto& f) { f.clear_protocol(); }), "protocol");
  expect_corrupt(after(token, [&](auto& f) { f.mutable_token()->mutable_sampled()->set_logprob(nan); }),
                 "logprob");
  expect_corrupt(after(token,
                       [](auto& f) {
                         for (int i = 0; i < 100; ++i) f.mutable_token()->mutable_sampled()->add_top();
                       }),
                 "top");
  expect_corrupt(after(encoded(Failed{1, 1, 0, unavailable("x"), "b"}),
                       [](auto& f) { f.mutable_failed()->clear_reason(); }),
                 "reason");
  const std::string rows = encoded(samples::rows());
  expect_corrupt(after(rows, [](auto& f) { f.mutable_rows()->add_tokens(1); }), "do not fill");
  expect_corrupt(after(rows, [](auto& f) { f.mutable_rows()->set_hidden_size(0xffffffffu); }), "hidden_size");
  expect_corrupt(after(rows, [](auto& f) { f.mutable_payload()->pop_back(); }), "do not fill");
  const std::string hello = encode(samples::hello(), 1);
  expect_corrupt(after(hello,
                       [](auto& f) {
                         for (int i = 0; i < 300; ++i) f.mutable_hello()->add_instances();
                       }),
                 "instances");
  expect_corrupt(
      after(hello, [](auto& f) { f.mutable_hello()->mutable_capabilities()->set_prefill_ops_per_s(-1); }),
      "prefill_ops_per_s");
  expect_corrupt(after(hello, [](auto& f) { f.mutable_hello()->mutable_protocol()->set_lowest(3); }),
                 "protocol");
}

TEST(Codec, ANewerBuildsUnknownFieldsAreIgnored) {
  std::string bytes = encoded(samples::rows());
  // Field 99 of the frame, after and before what is known; field 77 inside the body.
  const std::string later = std::string("\x9a\x06\x03", 3) + "new";
  EXPECT_EQ(std::get<Rows>(decoded_message(bytes + later)).hidden, samples::rows().hidden);
  EXPECT_EQ(std::get<Rows>(decoded_message(later + bytes)).hidden, samples::rows().hidden);
  const Status inside = after(encoded(samples::token()), [](pb::Frame& f) {
    auto* token = f.mutable_token();
    token->GetReflection()->MutableUnknownFields(token)->AddVarint(77, 5);
  });
  EXPECT_TRUE(inside.ok()) << inside.message();
}

TEST(Codec, WhatMustNotBeIgnoredIsRefusedByName) {
  const Status tree = after(encoded(samples::rows()), [](pb::Frame& f) { f.mutable_rows()->add_parents(0); });
  EXPECT_EQ(tree.code(), Code::kUnsupported);
  EXPECT_THAT(tree.message(), HasSubstr("trees"));
  EXPECT_EQ(after(encoded(samples::open_session()),
                  [](pb::Frame& f) { f.mutable_open_session()->set_adapter("a"); })
                .code(),
            Code::kUnsupported);
  EXPECT_EQ(after(encoded(samples::token()), [](pb::Frame& f) { f.mutable_kv_offer(); }).code(),
            Code::kUnsupported);
  EXPECT_EQ(decode(bytes_of(encode("a", CloseSession{1, 1}, 2))).status().code(), Code::kUnsupported);
}

TEST(Protocol, VersionsThatOverlapAgreeOnTheHighest) {
  EXPECT_EQ(*agree_on_protocol({1, 3}, {2, 5}, "beta"), 3);
  EXPECT_EQ(*agree_on_protocol({2, 5}, {1, 3}, "beta"), 3);
  EXPECT_EQ(*agree_on_protocol({1, 1}, {1, 1}, "beta"), 1);
}

TEST(Protocol, VersionsThatDoNotOverlapRefuseEachOtherWithBothRanges) {
  for (auto [ours, theirs] :
       {std::pair{ProtocolRange{1, 2}, ProtocolRange{3, 4}}, {ProtocolRange{3, 4}, ProtocolRange{1, 2}}}) {
    const auto agreed = agree_on_protocol(ours, theirs, "beta");
    ASSERT_EQ(agreed.status().code(), Code::kUnsupported);
    EXPECT_THAT(agreed.status().message(), HasSubstr("beta"));
    EXPECT_THAT(agreed.status().message(), HasSubstr("1 to 2"));
    EXPECT_THAT(agreed.status().message(), HasSubstr("3 to 4"));
  }
  // The Hello that says so is read, whatever its own version.
  Hello newer = samples::hello();
  newer.protocol = {7, 9};
  EXPECT_TRUE(decode(bytes_of(encode(newer, 9))).ok());
}

TEST(Bundle, SplitsIntoItsFramesAndSkipsWhatItDoesNotKnow) {
  std::string bundle;
  for (const auto& message : samples::session_messages()) {
    const std::string frame = encoded(message);
    bundle += bundle_prefix(frame.size()) + frame;
  }
  bundle += std::string("\x9a\x06\x03", 3) + "new";
  auto frames = split_bundle(bytes_of(bundle));
  ASSERT_TRUE(frames.ok());
  ASSERT_EQ(frames->size(), samples::session_messages().size());
  for (auto frame : *frames) EXPECT_TRUE(decode(frame).ok());
  pb::Bundle parsed;
  EXPECT_TRUE(parsed.ParseFromString(bundle));
  EXPECT_EQ(parsed.frames_size(), static_cast<int>(frames->size()));
  bundle.resize(bundle.size() - 1);
  EXPECT_EQ(split_bundle(bytes_of(bundle)).status().code(), Code::kCorrupt);
}

TEST(Codec, DamagedFramesNeverDecodeIntoSomethingOutOfBounds) {
  std::mt19937 random(7);
  std::vector<std::string> frames;
  for (const auto& message : samples::session_messages()) frames.push_back(encoded(message));
  for (const auto& message : samples::control_messages()) frames.push_back(encode(message, 1));
  int accepted = 0;
  for (const auto& good : frames) {
    for (size_t cut = 0; cut < good.size(); ++cut) (void)decode(bytes_of(good).first(cut));
    for (int round = 0; round < 3000; ++round) {
      std::string bad = good;
      const int changes = 1 + static_cast<int>(random() % 4);
      for (int i = 0; i < changes; ++i) bad[random() % bad.size()] = static_cast<char>(random());
      auto frame = decode(bytes_of(bad));
      if (!frame.ok()) continue;
      ++accepted;
      if (const auto* envelope = std::get_if<Envelope>(&*frame)) {
        if (const auto* open = std::get_if<OpenSession>(&envelope->message)) {
          ASSERT_LT(static_cast<size_t>(open->hop), open->route->size());
          ASSERT_LE(static_cast<size_t>(open->prompt_tokens), open->tokens->size());
        }
        if (const auto* rows = std::get_if<Rows>(&envelope->message)) {
          ASSERT_TRUE(rows->tokens.empty() || rows->hidden.size() % rows->tokens.size() == 0);
        }
      }
    }
  }
  EXPECT_GT(accepted, 1000);  // the damage is fine enough to reach the readers
}

}  // namespace
}  // namespace tessera::wire
