#include "sim/heap_meter.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace tessera::sim {

bool HeapMeter::on = false;
int64_t HeapMeter::bytes = 0;

namespace {

struct alignas(16) Head {
  size_t bytes;
  bool counted;
};

}  // namespace
}  // namespace tessera::sim

using tessera::sim::Head;
using tessera::sim::HeapMeter;

void* operator new(size_t bytes) {
  auto* head = static_cast<Head*>(std::malloc(sizeof(Head) + bytes));
  if (head == nullptr) throw std::bad_alloc();
  *head = {bytes, HeapMeter::on};
  if (HeapMeter::on) HeapMeter::bytes += static_cast<int64_t>(bytes);
  return head + 1;
}
void operator delete(void* memory) noexcept {
  if (memory == nullptr) return;
  Head* head = static_cast<Head*>(memory) - 1;
  if (head->counted) HeapMeter::bytes -= static_cast<int64_t>(head->bytes);
  std::free(head);
}
void operator delete(void* memory, size_t) noexcept {
  operator delete(memory);
}
