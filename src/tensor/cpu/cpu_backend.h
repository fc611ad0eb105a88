// The CPU backend: portable kernels plus AVX2 and AVX-512 twins chosen at run time.
#pragma once

#include <memory>

#include "tensor/backend.h"

namespace tessera::tensor {

enum class Isa : uint8_t { kPortable, kAvx2, kAvx512, kNeon };

// The best path of this processor; TESSERA_ISA=portable|avx2|avx512 (config, not read here) forces one for
// tests.
Isa best_isa();
bool isa_supported(Isa isa);
std::string_view isa_name(Isa isa);
Result<Isa> parse_isa(std::string_view name);

class ThreadPool;  // threads that wait cheaply between steps; shared by the backends of one process;
                   // thread-safe

// threads = 0: one per physical core this process may run on.
std::shared_ptr<ThreadPool> make_thread_pool(int threads);
int thread_count(const ThreadPool& pool);

struct CpuOptions {
  Isa isa = best_isa();
};
std::unique_ptr<Backend> make_cpu_backend(std::shared_ptr<ThreadPool> pool, CpuOptions options = {});

// Dequantises `elements` values of any DType to float32, exactly as the format defines them (the reference).
Status dequantise(DType dtype, std::span<const uint8_t> bytes, std::span<float> out);

}  // namespace tessera::tensor
