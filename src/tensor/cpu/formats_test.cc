// Dequantisation against values of the PyPI `gguf` package (testdata/make_dequantise.py).
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "base/bytes.h"
#include "base/files.h"
#include "tensor/cpu/cpu_backend.h"

namespace tessera::tensor {
namespace {

TEST(Dequantise, EqualsTheGgufPackage) {
  const std::map<std::string, DType> types = {
      {"Q8_0", DType::kQ8_0}, {"Q4_0", DType::kQ4_0}, {"Q4_1", DType::kQ4_1}, {"Q5_0", DType::kQ5_0},
      {"Q5_1", DType::kQ5_1}, {"Q4_K", DType::kQ4_K}, {"Q5_K", DType::kQ5_K}, {"Q6_K", DType::kQ6_K}};
  const auto file = read_file(std::string(TESSERA_SOURCE_DIR) + "/src/tensor/testdata/dequantise.bin");
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  ByteReader reader({reinterpret_cast<const uint8_t*>(file.value().data()), file.value().size()});
  size_t seen = 0;
  while (reader.remaining() > 0) {
    const std::string name = reader.take_string(8).value().data();
    const auto bytes = reader.read<uint32_t>().value();
    const auto values = reader.read<uint32_t>().value();
    const auto data = reader.take(bytes).value();
    const auto expected = reader.take(values * 4).value();
    std::vector<float> out(values);
    ASSERT_TRUE(dequantise(types.at(name), data, out).ok()) << name;
    EXPECT_EQ(std::memcmp(out.data(), expected.data(), expected.size()), 0) << name;
    ++seen;
  }
  EXPECT_EQ(seen, types.size());
}

TEST(Dequantise, ChecksSizesAndTypes) {
  std::vector<float> out(32);
  const std::vector<uint8_t> bytes(34);
  EXPECT_TRUE(dequantise(DType::kQ8_0, bytes, out).ok());
  EXPECT_FALSE(dequantise(DType::kQ8_0, std::span(bytes).first(33), out).ok());
  EXPECT_FALSE(dequantise(DType::kQ8_0, bytes, std::span(out).first(31)).ok());
  EXPECT_EQ(dequantise(DType::kF8E5M2, std::span(bytes).first(32), out).code(), Code::kUnsupported);
}

TEST(Isa, NamesParse) {
  EXPECT_EQ(parse_isa("portable").value(), Isa::kPortable);
  EXPECT_EQ(parse_isa(isa_name(best_isa())).value(), best_isa());
  EXPECT_EQ(parse_isa("sse").status().code(), Code::kInvalidArgument);
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kNeon})
    EXPECT_EQ(parse_isa(isa_name(isa)).ok(), isa_supported(isa)) << isa_name(isa);
}

}  // namespace
}  // namespace tessera::tensor
