// The parts of a tokenizer file, each on a small vocabulary.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "base/json.h"
#include "text/byte_level.h"
#include "text/detokenizer.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace tessera::text {
namespace {

using Ids = std::vector<int32_t>;
using Strings = std::vector<std::string>;

TokenizerPtr load(const Json& json, const std::string& config = "") {
  auto tokenizer = load_tokenizer_json(json.dump(), config);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().to_string();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

Json parse(const char* text) {
  return Json::parse(text);
}

Strings pieces(const char* pre_tokenizer, std::string_view text) {
  auto stages = parse_pre_tokenizer(Json::parse(pre_tokenizer));
  EXPECT_TRUE(stages.ok()) << stages.status().to_string();
  Strings found;
  const PieceSink sink = [&](Piece piece) {
    found.emplace_back(piece.text);
    return Status();
  };
  EXPECT_TRUE(chain_pre_tokenizers(*stages, sink)({text, true}).ok());
  return found;
}

std::string normalized(const char* normalizer, std::string text) {
  auto parsed = parse_normalizer(Json::parse(normalizer));
  EXPECT_TRUE(parsed.ok()) << parsed.status().to_string();
  EXPECT_TRUE((*parsed)->apply(text, true).ok());
  return text;
}

TEST(PreTokenizer, SplitBehaviors) {
  const auto split = [](const std::string& behavior, const char* invert = "false") {
    const std::string json = R"({"type":"Split","pattern":{"String":"-"},"behavior":")" + behavior +
                             R"(","invert":)" + invert + "}";
    return pieces(json.c_str(), "the-final--countdown");
  };
  EXPECT_EQ(split("Removed"), (Strings{"the", "final", "countdown"}));
  EXPECT_EQ(split("Removed", "true"), (Strings{"-", "-", "-"}));
  EXPECT_EQ(split("Isolated"), (Strings{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithPrevious"), (Strings{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithNext"), (Strings{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split("Contiguous"), (Strings{"the", "-", "final", "--", "countdown"}));
}

TEST(PreTokenizer, Types) {
  EXPECT_EQ(pieces(R"({"type":"Whitespace"})", "Hi, you_2 !?"), (Strings{"Hi", ",", "you_2", "!?"}));
  EXPECT_EQ(pieces(R"({"type":"WhitespaceSplit"})", " a  b,c "), (Strings{"a", "b,c"}));
  EXPECT_EQ(pieces(R"({"type":"Digits","individual_digits":true})", "a12b"), (Strings{"a", "1", "2", "b"}));
  EXPECT_EQ(pieces(R"({"type":"Digits"})", "a12b"), (Strings{"a", "12", "b"}));
  EXPECT_EQ(pieces(R"({"type":"Punctuation"})", "a,b!!"), (Strings{"a", ",", "b", "!", "!"}));
  EXPECT_EQ(pieces(R"({"type":"BertPreTokenizer"})", "a-b c"), (Strings{"a", "-", "b", "c"}));
  EXPECT_EQ(pieces(R"({"type":"Metaspace"})", "a b"), (Strings{"▁a", "▁b"}));
  EXPECT_EQ(pieces(R"({"type":"Metaspace","prepend_scheme":"never","split":false})", "a b"),
            (Strings{"a▁b"}));
  EXPECT_EQ(pieces(R"({"type":"ByteLevel"})", "a bé"), (Strings{"Ġa", "ĠbÃ©"}));
  EXPECT_EQ(
      pieces(R"({"type":"Sequence","pretokenizers":[{"type":"WhitespaceSplit"},{"type":"Digits"}]})", "a1 2"),
      (Strings{"a", "1", "2"}));
}

TEST(Normalizer, Types) {
  EXPECT_EQ(normalized(R"({"type":"BertNormalizer"})", "Caf\u00c9\t\u4e2d\u0001!"), "cafe  \u4e2d !");
  EXPECT_EQ(normalized(R"({"type":"Strip","strip_left":true,"strip_right":false})", " \u3000a "), "a ");
  EXPECT_EQ(normalized(R"({"type":"StripAccents"})", "e\u0301"), "e");
  EXPECT_EQ(normalized(R"({"type":"Lowercase"})", "ÀΣ\u0130"), "àσi\u0307");
  EXPECT_EQ(normalized(R"({"type":"Prepend","prepend":"▁"})", ""), "");
  EXPECT_EQ(normalized(R"({"type":"Sequence","normalizers":[{"type":"NFKC"},
                        {"type":"Replace","pattern":{"Regex":"\\s+"},"content":"_"}]})",
                       "\uff21 \n b"),
            "A_b");
}

TEST(TokenizerJson, NamesWhatItDoesNotKnow) {
  const Json good = parse(R"({"model":{"type":"WordPiece","vocab":{"[UNK]":0},"unk_token":"[UNK]"}})");
  for (const char* part : {"normalizer", "pre_tokenizer", "decoder", "post_processor", "model"}) {
    Json bad = good;
    bad[part] = {{"type", "Frobnicate"}};
    const auto loaded = load_tokenizer_json(bad.dump(), "");
    EXPECT_EQ(loaded.status().code(), Code::kUnsupported) << part;
    EXPECT_NE(loaded.status().message().find("Frobnicate"), std::string::npos) << part;
  }
}

TEST(TokenizerJson, RefusesBrokenFiles) {
  for (const char* text : {
           "",
           "[]",
           "{}",
           R"({"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}})",
           R"({"model":{"type":"BPE","vocab":{"a":99999999},"merges":[]}})",
           R"({"model":{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}})",
           R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}})",
           R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a"]}})",
           R"({"model":{"type":"Unigram","vocab":[["a"]]}})",
           R"({"model":{"type":"Unigram","vocab":[["a",0.0]],"unk_id":7}})",
           R"({"model":{"type":"WordPiece","vocab":{},"unk_token":"x"}})",
       })
    EXPECT_EQ(load_tokenizer_json(text, "").status().code(), Code::kCorrupt) << text;
  EXPECT_EQ(load_tokenizer_json(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[],"dropout":0.1}})", "")
                .status()
                .code(),
            Code::kUnsupported);
}

TEST(TokenizerJson, WordPieceAsBertUsesIt) {
  const auto tokenizer = load(parse(R"({
    "model":{"type":"WordPiece","unk_token":"[UNK]","max_input_chars_per_word":8,"vocab":
      {"[UNK]":0,"[CLS]":1,"[SEP]":2,"hello":3,"##s":4,"world":5,"!":6}},
    "normalizer":{"type":"BertNormalizer"},"pre_tokenizer":{"type":"BertPreTokenizer"},
    "post_processor":{"type":"BertProcessing","cls":["[CLS]",1],"sep":["[SEP]",2]},
    "decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
    "added_tokens":[{"id":1,"content":"[CLS]","special":true},{"id":2,"content":"[SEP]","special":true}]})"),
                              R"({"bos_token":"[CLS]","eos_token":{"content":"[SEP]"}})");
  const Ids ids = tokenizer->encode("Hellos WORLD!").value();
  EXPECT_EQ(ids, (Ids{1, 3, 4, 5, 6, 2}));
  EXPECT_EQ(tokenizer->decode(ids, true).value(), "hellos world!");
  EXPECT_EQ(tokenizer->encode("helloq worldsss worldssss", {false}).value(), (Ids{0, 5, 4, 4, 4, 0}));
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_TRUE(tokenizer->is_special(1));
  EXPECT_FALSE(tokenizer->is_special(3));
  EXPECT_EQ(tokenizer->vocab_size(), 7);
  EXPECT_EQ(tokenizer->token_bytes(4), "s");
  EXPECT_EQ(tokenizer->token_bytes(3), " hello");
  EXPECT_EQ(tokenizer->token_text(99), "");
  EXPECT_EQ(tokenizer->decode(Ids{99}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(tokenizer->decode(Ids{-1}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(tokenizer->encode("\xFF").status().code(), Code::kInvalidArgument);
}

TEST(TokenizerJson, AddedTokensTakeTheirSpaces) {
  const auto tokenizer = load(parse(R"({
    "model":{"type":"BPE","vocab":{"a":0,"b":1," ":2,"<":3},"merges":[]},
    "decoder":{"type":"Fuse"},
    "added_tokens":[{"id":10,"content":"<l>","lstrip":true,"special":true},
                    {"id":11,"content":"<r>","rstrip":true,"special":true},
                    {"id":12,"content":"<w>","single_word":true,"special":true},
                    {"id":13,"content":"<w>b","special":true}]})"));
  EXPECT_EQ(tokenizer->encode("a  <l> a").value(), (Ids{0, 10, 2, 0}));
  EXPECT_EQ(tokenizer->encode("a <r>  a").value(), (Ids{0, 2, 11, 0}));
  EXPECT_EQ(tokenizer->encode("<w> <w>").value(), (Ids{12, 2, 12}));
  EXPECT_EQ(tokenizer->encode("a<w>").value(), (Ids{0, 3}));        // touches a word; "w" and ">" are unknown
  EXPECT_EQ(tokenizer->encode("<w>b").value(), (Ids{13}));          // the longest wins
  EXPECT_EQ(tokenizer->encode("<r>  <l>").value(), (Ids{11, 10}));  // spaces are taken once
}

TEST(TokenizerJson, UnigramTakesTheBestPath) {
  const auto tokenizer = load(parse(R"({
    "model":{"type":"Unigram","unk_id":0,"vocab":
      [["<unk>",0.0],["▁a",-1.0],["b",-2.0],["▁ab",-2.5],["c",-1.0],["bc",-4.0]]},
    "pre_tokenizer":{"type":"Metaspace"},"decoder":{"type":"Metaspace"}})"));
  EXPECT_EQ(tokenizer->encode("ab").value(), (Ids{3}));
  EXPECT_EQ(tokenizer->encode("abc abxyb").value(), (Ids{3, 4, 3, 0, 2}));  // unknown in a row: one token
  EXPECT_EQ(tokenizer->decode(Ids{3, 4, 3}).value(), "abc ab");
}

// A SentencePiece model in protobuf's wire format.
std::string field(int number, std::string_view bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  EXPECT_LT(bytes.size(), 128u);
  return out + static_cast<char>(bytes.size()) + std::string(bytes);
}
std::string number_field(int number, int value) {
  std::string key(1, static_cast<char>((number << 3 & 0x7F) | (number >= 16 ? 0x80 : 0)));
  if (number >= 16) key += static_cast<char>(number >> 4);
  return key + static_cast<char>(value);
}
std::string piece(std::string_view text, float score, int type) {
  std::string bytes(sizeof score, ' ');
  std::memcpy(bytes.data(), &score, sizeof score);
  return field(1, field(1, text) + std::string(1, 2 << 3 | 5) + bytes + number_field(3, type));
}

std::string small_sentencepiece(int model_type) {
  std::string model = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
  for (int b = 0; b < 256; ++b) model += piece(byte_piece(static_cast<unsigned char>(b)), 0, 6);
  model += piece("▁a", -1, 1) + piece("ab", -2, 1) + piece("▁", -3, 1) + piece("a", -4, 1) +
           piece("b", -5, 1) + piece("<sep>", 0, 4);
  model += field(2, number_field(3, model_type) + number_field(35, 1));
  return model + field(3, number_field(4, 0));  // keeps repeated spaces
}
constexpr int kA = 259, kAb = 260, kSpace = 261, kPlainA = 262, kB = 263, kSep = 264;

Result<TokenizerPtr> load_model(const std::string& bytes, const char* config = "") {
  return load_sentencepiece({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, config);
}

TEST(SentencePiece, MergesByScore) {
  const auto tokenizer = load_model(small_sentencepiece(2)).value();
  EXPECT_EQ(tokenizer->encode("ab").value(), (Ids{1, kA, kB}));
  EXPECT_EQ(tokenizer->encode("bab", {false}).value(), (Ids{kSpace, kB, kAb}));
  EXPECT_EQ(tokenizer->encode("\n", {false}).value(), (Ids{kSpace, 3 + 10}));
  EXPECT_EQ(tokenizer->encode("a<sep>a", {false}).value(), (Ids{kA, kSep, kPlainA}));
  EXPECT_EQ(tokenizer->encode("a</s>a", {false}).value(), (Ids{kA, 2, kA}));
  EXPECT_EQ(tokenizer->decode(Ids{kA, kB, kA}).value(), "ab a");
  EXPECT_EQ(tokenizer->token_bytes(kA), " a");
  EXPECT_EQ(tokenizer->token_bytes(3 + 0xE4), "\xE4");
  EXPECT_EQ(tokenizer->eos_id(), 2);
  const auto modern = load_model(small_sentencepiece(2), R"({"legacy":false,"add_bos_token":false})").value();
  EXPECT_EQ(modern->encode("a</s>a").value(), (Ids{kA, 2, kPlainA}));
}

TEST(SentencePiece, Unigram) {
  const auto tokenizer = load_model(small_sentencepiece(1)).value();
  EXPECT_EQ(tokenizer->encode("ab  a", {false}).value(), (Ids{kSpace, kAb, kSpace, kA}));
}

TEST(SentencePiece, RefusesBrokenFiles) {
  const std::string good = small_sentencepiece(2);
  EXPECT_EQ(load_model("").status().code(), Code::kCorrupt);
  EXPECT_EQ(load_model(good.substr(0, good.size() / 2)).status().code(), Code::kCorrupt);
  EXPECT_EQ(load_model(small_sentencepiece(3)).status().code(), Code::kUnsupported);
  EXPECT_EQ(load_model(good + field(3, field(2, "\xFF\xFF\xFF\x7Fxxxx"))).status().code(), Code::kCorrupt);
}

GgufVocabulary small_gguf(const char* model) {
  GgufVocabulary vocabulary;
  vocabulary.model = model;
  vocabulary.tokens = {"<unk>", "<s>", "a", "b", "ab", "Ġ", "Ġab"};
  vocabulary.token_types = {2, 3, 1, 1, 1, 1, 1};
  vocabulary.merges = {"a b", "Ġ ab"};
  vocabulary.bos = 1;
  return vocabulary;
}

TEST(GgufTokenizer, ByteLevel) {
  GgufVocabulary vocabulary = small_gguf("gpt2");
  vocabulary.pre = "smollm";
  EXPECT_EQ(load_gguf_tokenizer(vocabulary).value()->encode("ab ab<s>").value(), (Ids{4, 6, 1}));
  vocabulary.add_bos = true;
  EXPECT_EQ(load_gguf_tokenizer(vocabulary).value()->encode("b").value(), (Ids{1, 3}));
  vocabulary.pre = "frobnicate";
  const auto unknown = load_gguf_tokenizer(vocabulary);
  EXPECT_EQ(unknown.status().code(), Code::kUnsupported);
  EXPECT_NE(unknown.status().message().find("frobnicate"), std::string::npos);
  vocabulary.pre = "qwen2";
  vocabulary.bos = 70;
  EXPECT_EQ(load_gguf_tokenizer(vocabulary).status().code(), Code::kCorrupt);
}

TEST(GgufTokenizer, ByScores) {
  GgufVocabulary vocabulary = small_gguf("llama");
  EXPECT_EQ(load_gguf_tokenizer(vocabulary).status().code(), Code::kCorrupt);  // no scores
  vocabulary.tokens[5] = "▁";
  vocabulary.tokens[6] = "▁ab";
  vocabulary.scores = {0, 0, -3, -3, -1, -3, -2};
  const auto tokenizer = load_gguf_tokenizer(vocabulary).value();
  EXPECT_EQ(tokenizer->encode("ab b").value(), (Ids{1, 6, 5, 3}));
  vocabulary.model = "bert";
  EXPECT_EQ(load_gguf_tokenizer(vocabulary).status().code(), Code::kUnsupported);
}

TEST(Detokenizer, StreamsWhatDecodeGives) {
  const auto tokenizer = load_model(small_sentencepiece(2)).value();
  std::mt19937 random(3);
  const auto token_of_byte = [](int byte) { return 3 + byte; };
  for (int round = 0; round < 3000; ++round) {
    Ids ids;
    for (size_t i = random() % 12; i > 0; --i) {
      switch (random() % 3) {
        case 0:
          ids.push_back(static_cast<int32_t>(random() % 265));
          break;
        case 1:
          ids.push_back(kA + static_cast<int32_t>(random() % 5));
          break;
        default:
          for (const char byte : std::string("\xE4\xBD\xA0"))
            ids.push_back(token_of_byte(static_cast<uint8_t>(byte)));
      }
    }
    for (const bool skip : {false, true}) {
      IncrementalDetokenizer detokenizer(tokenizer, skip);
      std::string text;
      for (const int32_t id : ids) {
        const std::string part = detokenizer.push(id);
        ASSERT_TRUE(Json(part).dump().size() >= 2)
            << "a part is not whole characters";  // dump throws on half ones
        text += part;
      }
      ASSERT_EQ(text + detokenizer.finish(), tokenizer->decode(ids, skip).value());
    }
  }
}

TEST(Tokenizer, LongRunsStayLinear) {
  const auto tokenizer = load(parse(R"({
    "model":{"type":"BPE","vocab":{"a":0,"aa":1,"aaaa":2,"aaaaaaaa":3,"Ġ":4,"ĠĠ":5},
             "merges":["a a","aa aa","aaaa aaaa","Ġ Ġ"]},
    "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"}})"));
  constexpr size_t kLength = 512 << 10;  // a quadratic merge runs into the test's time limit
  for (const char letter : {'a', ' '})
    EXPECT_EQ(tokenizer->encode(std::string(kLength, letter)).value().size(),
              kLength / (letter == 'a' ? 8 : 2));
}

}  // namespace
}  // namespace tessera::text
